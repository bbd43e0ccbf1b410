//! What others left on a device: file systems, partition tables, volume managers, disk images.
//!
//! A pure function of the first and last [`PROBE_BYTES`] of a device. Offsets and magic numbers are those of the formats'
//! own documents. It is there to keep an operator from losing data, so that it rather takes something for a signature
//! that is none: whatever is not known by name is *unknown data*.

/// Bytes looked at, and erased by `--force`, at each end of a device.
pub const PROBE_BYTES: u64 = 1 << 20;

/// Bytes at each end of a device that must be zero where nothing is known by name.
const BLANK_BYTES: usize = 128 << 10;

const KIB: usize = 1 << 10;

/// The ends of a device.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its first bytes, [`PROBE_BYTES`] where it has as many.
    pub head: &'a [u8],
    /// Its last bytes, as many.
    pub tail: &'a [u8],
}

/// Magic numbers at fixed places near the start: where, what, and whose. The first that fits counts.
const AT_START: &[(usize, &[u8], &str)] = &[
    (0, b"LUKS\xba\xbe", "a LUKS encrypted volume"),
    (16 * KIB, b"SKUL\xba\xbe", "a LUKS encrypted volume"),
    (32 * KIB, b"SKUL\xba\xbe", "a LUKS encrypted volume"),
    (64 * KIB, b"SKUL\xba\xbe", "a LUKS encrypted volume"),
    (128 * KIB, b"SKUL\xba\xbe", "a LUKS encrypted volume"),
    (256 * KIB, b"SKUL\xba\xbe", "a LUKS encrypted volume"),
    (512 * KIB, b"SKUL\xba\xbe", "a LUKS encrypted volume"),
    (3, b"-FVE-FS-", "a BitLocker encrypted volume"),
    (0, b"XFSB", "an XFS file system"),
    (0x10040, b"_BHRfS_M", "a btrfs file system"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"),
    (3, b"NTFS    ", "an NTFS file system"),
    (3, b"EXFAT   ", "an exFAT file system"),
    (82, b"FAT32   ", "a FAT file system"),
    (54, b"FAT12   ", "a FAT file system"),
    (54, b"FAT16   ", "a FAT file system"),
    (54, b"FAT     ", "a FAT file system"),
    (0x10000, b"\x01\x16\x19\x70", "a GFS2 file system"),
    (1024, b"OCFSV2", "an OCFS2 file system"),
    (2048, b"OCFSV2", "an OCFS2 file system"),
    (4096, b"OCFSV2", "an OCFS2 file system"),
    (8192, b"OCFSV2", "an OCFS2 file system"),
    (0x10034, b"ReIsEr", "a ReiserFS file system"),
    (0x8000, b"JFS1", "a JFS file system"),
    (1030, b"\x34\x34", "a NILFS2 file system"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
    (0, b"hsqs", "a SquashFS file system"),
    (1024, b"H+\x00\x04", "an HFS+ file system"),
    (32, b"NXSB", "an APFS container"),
    (0x8001, b"CD001", "an ISO 9660 image"),
    (0x8001, b"BEA01", "a UDF file system"),
    (
        4120,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
        "a bcache device",
    ),
    (
        4120,
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",
        "a bcachefs file system",
    ),
    (0, b"bluestore block device", "a Ceph BlueStore device"),
    (0, b"dmvdo001", "a VDO device"),
    (516, b"!Stra0tis", "a Stratis device"),
    (0, b"integrt\0", "a dm-integrity device"),
    (0, b"verity\0\0", "a dm-verity hash device"),
    (32, b"ORCLDISK", "an Oracle ASM disk"),
    (0, b"QFI\xfb", "a QCOW disk image"),
    (0, b"KDMV", "a VMDK disk image"),
    (0, b"vhdxfile", "a VHDX disk image"),
    (0, b"conectix", "a VHD disk image"),
    (64, b"\x7f\x10\xda\xbe", "a VDI disk image"),
];

/// Magic numbers at fixed distances from the end.
const AT_END: &[(usize, &[u8], &str)] = &[
    (
        1024,
        b"Intel Raid ISM Cfg Sig. ",
        "a member of an Intel RAID",
    ),
    (512, b"\xde\x11\xde\x11", "a member of a DDF RAID"),
    (512, b"\x11\xde\x11\xde", "a member of a DDF RAID"),
    (512, b"conectix", "a VHD disk image"),
];

/// Says by name what a device carries; `None` when both ends are blank.
pub fn recognise(ends: Ends<'_>) -> Option<String> {
    let found = ext(ends)
        .or_else(|| at_start(ends))
        .or_else(|| swap(ends))
        .or_else(|| lvm(ends))
        .or_else(|| md(ends))
        .or_else(|| zfs(ends))
        .or_else(|| drbd(ends))
        .or_else(|| at_end(ends))
        .or_else(|| partitions(ends));
    found.map(str::to_owned).or_else(|| unknown(ends))
}

impl Ends<'_> {
    fn starts(&self, at: usize, bytes: &[u8]) -> bool {
        self.head
            .get(at..)
            .is_some_and(|head| head.starts_with(bytes))
    }

    /// Whether the bytes are at `offset` of the device, near its end.
    fn ends(&self, offset: u64, bytes: &[u8]) -> bool {
        let start = self.size_bytes.saturating_sub(self.tail.len() as u64);
        offset
            .checked_sub(start)
            .and_then(|at| self.tail.get(usize::try_from(at).ok()?..))
            .is_some_and(|tail| tail.starts_with(bytes))
    }
}

fn at_start(ends: Ends<'_>) -> Option<&'static str> {
    let found = AT_START
        .iter()
        .find(|(at, bytes, _)| ends.starts(*at, bytes));
    found.map(|(_, _, what)| *what)
}

fn at_end(ends: Ends<'_>) -> Option<&'static str> {
    let found = AT_END.iter().find(|(distance, bytes, _)| {
        let offset = ends.size_bytes.checked_sub(*distance as u64);
        offset.is_some_and(|offset| ends.ends(offset, bytes))
    });
    found.map(|(_, _, what)| *what)
}

/// ext2, ext3 and ext4 have one magic number; their features tell them apart.
fn ext(ends: Ends<'_>) -> Option<&'static str> {
    const SUPERBLOCK: usize = 1024;
    if !ends.starts(SUPERBLOCK + 0x38, b"\x53\xef") {
        return None;
    }
    let feature = |at: usize| {
        let bytes = ends.head.get(SUPERBLOCK + at..SUPERBLOCK + at + 4);
        bytes.map_or(0, |bytes| {
            u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[i]))
        })
    };
    let (compatible, incompatible, read_only) = (feature(0x5c), feature(0x60), feature(0x64));
    Some(if incompatible & 0x8 != 0 {
        "a journal of an ext file system"
    } else if incompatible & !0x17 != 0 || read_only & !0x7 != 0 {
        "an ext4 file system"
    } else if compatible & 0x4 != 0 {
        "an ext3 file system"
    } else {
        "an ext2 file system"
    })
}

fn swap(ends: Ends<'_>) -> Option<&'static str> {
    let pages = [4, 8, 16, 32, 64].map(|kib| kib * KIB);
    let has = |magic: &[u8]| pages.iter().any(|page| ends.starts(page - 10, magic));
    if has(b"SWAPSPACE2") || has(b"SWAP-SPACE") {
        return Some("a swap area");
    }
    let images: [&[u8]; 4] = [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"];
    let hibernated = images.iter().any(|magic| has(magic));
    hibernated.then_some("a swap area with a hibernated system")
}

fn lvm(ends: Ends<'_>) -> Option<&'static str> {
    // The label is in one of the first four sectors.
    let label = [0, 512, 1024, 1536]
        .into_iter()
        .any(|at| ends.starts(at, b"LABELONE") && ends.starts(at + 24, b"LVM2 001"));
    if label {
        return Some("an LVM2 physical volume");
    }
    ends.starts(0, b"SnAp").then_some("an LVM snapshot store")
}

/// md raid: version 1.1 at the start, 1.2 at 4 KiB, 1.0 and 0.90 near the end.
fn md(ends: Ends<'_>) -> Option<&'static str> {
    const MAGIC: &[u8] = b"\xfc\x4e\x2b\xa9";
    const BIG_ENDIAN: &[u8] = b"\xa9\x2b\x4e\xfc";
    let v1_0 = (ends.size_bytes / 512)
        .checked_sub(16)
        .map(|sector| sector / 8 * 8 * 512);
    let v0_90 = (ends.size_bytes / 65_536 * 65_536).checked_sub(65_536);
    let found = ends.starts(0, MAGIC)
        || ends.starts(4096, MAGIC)
        || v1_0.is_some_and(|at| ends.ends(at, MAGIC))
        || v0_90.is_some_and(|at| ends.ends(at, MAGIC) || ends.ends(at, BIG_ENDIAN));
    found.then_some("a member of a Linux software RAID (md)")
}

/// Four labels of 256 KiB, two at each end; the second half of each is uberblocks.
fn zfs(ends: Ends<'_>) -> Option<&'static str> {
    const LABEL: u64 = 256 << 10;
    let aligned = ends.size_bytes / LABEL * LABEL;
    let is_uberblock = |offset: u64| {
        [b"\x0c\xb1\xba\x00", b"\x00\xba\xb1\x0c"]
            .iter()
            .any(|magic| {
                // 8 bytes: the other half of a big endian one comes first.
                let swapped = if magic[0] == 0 { 4 } else { 0 };
                let at = offset + swapped;
                usize::try_from(at).is_ok_and(|at| ends.starts(at, *magic)) || ends.ends(at, *magic)
            })
    };
    let labels = [
        Some(0),
        Some(LABEL),
        aligned.checked_sub(2 * LABEL),
        aligned.checked_sub(LABEL),
    ];
    let found = labels
        .into_iter()
        .flatten()
        .any(|label| (0..128).any(|slot| is_uberblock(label + LABEL / 2 + slot * 1024)));
    found.then_some("a member of a ZFS pool")
}

/// Internal metadata, in the last 4 KiB.
fn drbd(ends: Ends<'_>) -> Option<&'static str> {
    let at = (ends.size_bytes / 4096 * 4096).checked_sub(4096)? + 60;
    let magics: [&[u8]; 4] = [
        b"\x83\x74\x02\x6b",
        b"\x83\x74\x02\x67",
        b"\x83\x74\x02\x6c",
        b"\x83\x74\x02\x6d",
    ];
    let found = magics.iter().any(|magic| ends.ends(at, magic));
    found.then_some("a DRBD device with internal metadata")
}

fn partitions(ends: Ends<'_>) -> Option<&'static str> {
    const GPT: &[u8] = b"EFI PART";
    if ends.starts(512, GPT) || ends.starts(4096, GPT) {
        return Some("a GPT partition table");
    }
    let backup = [512, 4096]
        .into_iter()
        .filter_map(|distance| ends.size_bytes.checked_sub(distance))
        .any(|offset| ends.ends(offset, GPT));
    if backup {
        return Some("the backup of a GPT partition table");
    }
    if ends.starts(510, b"\x55\xaa") {
        let entries = [446, 462, 478, 494];
        let used = |at: &usize| ends.head.get(at + 4).is_some_and(|kind| *kind != 0);
        return Some(if entries.iter().any(used) {
            "an MBR partition table"
        } else {
            "a boot sector"
        });
    }
    None
}

fn unknown(ends: Ends<'_>) -> Option<String> {
    let head = &ends.head[..ends.head.len().min(BLANK_BYTES)];
    let tail = &ends.tail[ends.tail.len() - ends.tail.len().min(BLANK_BYTES)..];
    let place = if head.iter().any(|byte| *byte != 0) {
        "first"
    } else if tail.iter().any(|byte| *byte != 0) {
        "last"
    } else {
        return None;
    };
    Some(format!("data of an unknown kind in its {place} 128 KiB"))
}

#[cfg(test)]
mod tests;
