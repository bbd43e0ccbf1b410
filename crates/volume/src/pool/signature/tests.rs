//! Signatures: those that the real tools write, where they are installed, and all others by hand.

use std::process::Command;

use proptest::prelude::*;

use super::*;

const MIB: usize = 1 << 20;
const SIZE: usize = 16 * MIB;

fn of(image: &[u8]) -> Option<String> {
    let probe = PROBE_BYTES as usize;
    recognise(Ends {
        size_bytes: image.len() as u64,
        head: &image[..probe.min(image.len())],
        tail: &image[image.len() - probe.min(image.len())..],
    })
}

fn with(parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut image = vec![0; SIZE];
    for (at, bytes) in parts {
        image[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    image
}

#[test]
fn blank_is_nothing() {
    assert_eq!(of(&with(&[])), None);
    // Between the ends anything may be: what an earlier pool left.
    assert_eq!(of(&with(&[(200 << 10, b"x"), (5 * MIB, b"data")])), None);
    assert_eq!(of(&with(&[(SIZE - 200 * 1024, b"x")])), None);
}

#[test]
fn every_magic_number_is_found_where_it_belongs_and_wiped_by_its_end() {
    for (at, magic, what) in AT_START {
        assert_eq!(
            of(&with(&[(*at, magic)])).as_deref(),
            Some(*what),
            "{what} at {at}"
        );
        assert!(at + magic.len() <= PROBE_BYTES as usize);
    }
    for (distance, magic, what) in AT_END {
        let image = with(&[(SIZE - distance, magic)]);
        assert_eq!(
            of(&image).as_deref(),
            Some(*what),
            "{what} {distance} from the end"
        );
    }
}

#[test]
fn formats_with_rules_of_their_own() {
    let uberblock: &[u8] = b"\x0c\xb1\xba\x00\x00\x00\x00\x00";
    let big_endian: &[u8] = b"\x00\x00\x00\x00\x00\xba\xb1\x0c";
    let kib = 1024;
    let md = b"\xfc\x4e\x2b\xa9".as_slice();
    for (image, expected) in [
        (
            with(&[(0, b"LABELONE"), (24, b"LVM2 001")]),
            "an LVM2 physical volume",
        ),
        (
            with(&[(512, b"LABELONE"), (536, b"LVM2 001")]),
            "an LVM2 physical volume",
        ),
        (with(&[(4086, b"SWAPSPACE2")]), "a swap area"),
        (with(&[(65_526, b"SWAPSPACE2")]), "a swap area"),
        (
            with(&[(4086, b"S1SUSPEND")]),
            "a swap area with a hibernated system",
        ),
        (with(&[(0, md)]), "a member of a Linux software RAID (md)"),
        (
            with(&[(4096, md)]),
            "a member of a Linux software RAID (md)",
        ),
        (
            with(&[(SIZE - 8 * kib, md)]),
            "a member of a Linux software RAID (md)",
        ),
        (
            with(&[(SIZE - 64 * kib, md)]),
            "a member of a Linux software RAID (md)",
        ),
        (with(&[(128 * kib, uberblock)]), "a member of a ZFS pool"),
        (
            with(&[(128 * kib + 77 * kib, uberblock)]),
            "a member of a ZFS pool",
        ),
        (with(&[(384 * kib, big_endian)]), "a member of a ZFS pool"),
        (
            with(&[(SIZE - 384 * kib, uberblock)]),
            "a member of a ZFS pool",
        ),
        (
            with(&[(SIZE - 128 * kib, big_endian)]),
            "a member of a ZFS pool",
        ),
        (
            with(&[(SIZE - 4096 + 60, b"\x83\x74\x02\x6d")]),
            "a DRBD device with internal metadata",
        ),
        (
            with(&[(510, b"\x55\xaa"), (450, b"\xee"), (512, b"EFI PART")]),
            "a GPT partition table",
        ),
        (with(&[(4096, b"EFI PART")]), "a GPT partition table"),
        (
            with(&[(SIZE - 512, b"EFI PART")]),
            "the backup of a GPT partition table",
        ),
        (
            with(&[(SIZE - 4096, b"EFI PART")]),
            "the backup of a GPT partition table",
        ),
        (
            with(&[(510, b"\x55\xaa"), (450, b"\x83")]),
            "an MBR partition table",
        ),
        (with(&[(510, b"\x55\xaa")]), "a boot sector"),
        // A FAT file system has a boot sector, too.
        (
            with(&[(510, b"\x55\xaa"), (82, b"FAT32   ")]),
            "a FAT file system",
        ),
        (
            with(&[(77, b"?")]),
            "data of an unknown kind in its first 128 KiB",
        ),
        (
            with(&[(SIZE - 1, b"?")]),
            "data of an unknown kind in its last 128 KiB",
        ),
    ] {
        assert_eq!(of(&image).as_deref(), Some(expected));
    }
    // A device whose size is no multiple of anything.
    let mut odd = vec![0; SIZE + 12_345];
    let at = odd.len() / 65_536 * 65_536 - 65_536;
    odd[at..at + 4].copy_from_slice(md);
    assert_eq!(
        of(&odd).as_deref(),
        Some("a member of a Linux software RAID (md)")
    );
}

/// What a real tool writes into a file, or `None` where the tool is not installed.
fn made_by(tool: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let directory = std::env::temp_dir().join(format!(
        "signature-{}-{}",
        std::process::id(),
        uuid::Uuid::new_v4()
    ));
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("image");
    let size = if tool == "mkfs.xfs" {
        320 * MIB
    } else {
        64 * MIB
    };
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(size as u64).unwrap();
    let ran = Command::new(tool).args(arguments).arg(&path).output();
    let image = ran.ok().map(|output| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{tool}: {said}");
        std::fs::read(&path).unwrap()
    });
    std::fs::remove_dir_all(&directory).unwrap();
    image
}

#[test]
fn what_real_tools_make_is_known_by_name() {
    let mut seen = 0;
    for (tool, arguments, expected) in [
        ("mkfs.ext2", &["-q", "-F"][..], "an ext2 file system"),
        ("mkfs.ext3", &["-q", "-F"], "an ext3 file system"),
        ("mkfs.ext4", &["-q", "-F"], "an ext4 file system"),
        ("mkfs.xfs", &["-q", "-f"], "an XFS file system"),
        ("mkfs.btrfs", &["-q", "-f"], "a btrfs file system"),
        ("mkfs.f2fs", &["-q", "-f"], "an F2FS file system"),
        ("mkfs.vfat", &[], "a FAT file system"),
        ("mkfs.exfat", &[], "an exFAT file system"),
        ("mkfs.ntfs", &["-q", "-F"], "an NTFS file system"),
        ("mkswap", &[], "a swap area"),
    ] {
        if let Some(image) = made_by(tool, arguments) {
            assert_eq!(of(&image).as_deref(), Some(expected), "{tool}");
            seen += 1;
        }
    }
    // Every machine that builds this has e2fsprogs or util-linux; if not, the images above by hand still count.
    println!("{seen} tools");
}

proptest! {
    /// Whatever a device holds, in whatever size: an answer, and never silence about bytes in the ends.
    #[test]
    fn any_bytes_are_answered(
        size in 0usize..400_000,
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        length in 0usize..400_000,
    ) {
        let mut image = vec![0u8; size];
        for (at, byte) in &bytes {
            if size > 0 {
                let at = at.index(size);
                image[at] = *byte;
            }
        }
        let length = length.min(size);
        let answer = recognise(Ends {
            size_bytes: size as u64,
            head: &image[..length],
            tail: &image[size - length..],
        });
        let ends = &image[..length.min(128 << 10)];
        prop_assert!(answer.is_some() || ends.iter().all(|byte| *byte == 0));
    }
}
