//! sg3_utils: what the disk says about itself.

use anyhow::{Result, ensure};

use super::lab::Lab;

/// INQUIRY, all VPD pages, REPORT SUPPORTED OPERATION CODES, READ CAPACITY, MODE SENSE, LOG SENSE, GET LBA STATUS.
pub fn sg_utilities(lab: &mut Lab) -> Result<()> {
    let disk = lab.volume("commands", 64)?;
    lab.login(0, 1, &disk)?;
    let is_ringfence = lab.target.ringfence().is_some();
    let guest = &mut lab.guests[0];
    let sg = guest.generic(&disk.paths[0])?;

    let inquiry = guest.ok(&format!("sg_inq {sg}"))?;
    ensure!(
        inquiry.contains("Peripheral device type: disk"),
        "{inquiry}"
    );
    let pages = guest.ok(&format!("sg_vpd {sg}"))?;
    ensure!(pages.contains("Device identification"), "{pages}");
    if !is_ringfence {
        return Ok(()); // tgt has few of the rest.
    }
    ensure!(
        inquiry.contains("TPGS=") && inquiry.contains("CmdQue=1"),
        "{inquiry}"
    );
    for page in ["sv", "sn", "di", "ei", "bl", "bdc", "lbpv"] {
        let text = guest.ok(&format!("sg_vpd --page={page} {sg}"))?;
        ensure!(
            !text.contains("malformed") && !text.contains("too short"),
            "page {page}: {text}"
        );
    }
    let identification = guest.ok(&format!("sg_vpd --page=di {sg}"))?;
    for part in [
        "designator type: NAA",
        "      0x3",
        "Relative target port: 0x1",
        "Target port group: 0x1",
        "SCSI name string:",
    ] {
        ensure!(
            identification.contains(part),
            "no '{part}' in\n{identification}"
        );
    }
    let provisioning = guest.ok(&format!("sg_vpd --page=lbpv {sg}"))?;
    ensure!(
        provisioning.contains("Unmap command supported (LBPU): 1"),
        "{provisioning}"
    );

    let opcodes = guest.ok(&format!("sg_opcodes {sg}"))?;
    for command in [
        "Persistent reserve out, Preempt and abort",
        "Persistent reserve out, Replace lost reservation",
        "Persistent reserve in, Read full status",
        "Compare and write",
        "Unmap",
        "Write same(16)",
        "Synchronize cache(16)",
        "Report target port groups",
        "Sanitize, overwrite",
    ] {
        ensure!(
            opcodes.to_lowercase().contains(&command.to_lowercase()),
            "no '{command}' in\n{opcodes}"
        );
    }
    let functions = guest.ok(&format!("sg_opcodes --tmf {sg}"))?;
    for function in [
        "Abort task",
        "Abort task set",
        "Clear task set",
        "Logical unit reset",
    ] {
        ensure!(
            functions.contains(function),
            "no '{function}' in\n{functions}"
        );
    }
    let capacity = guest.ok(&format!("sg_readcap --16 {sg}"))?;
    ensure!(
        capacity.contains("block length=512 bytes") && capacity.contains("lbpme=1"),
        "{capacity}"
    );
    guest.ok(&format!("sg_modes --all {sg}"))?;
    guest.ok(&format!("sg_logs --all {sg}"))?;
    guest.ok(&format!("sg_rtpg --decode {sg}"))?;
    guest.ok(&format!("sg_get_lba_status --lba=0 {sg}"))?;
    guest.ok(&format!(
        "sg_turs {sg} && sg_requests {sg} && sg_sync {sg} && sg_verify --count=8 {sg}"
    ))?;

    // The kernel found the same: it discards, and what it discards reads as zeroes.
    let name = format!("$(basename $(readlink -f {}))", disk.paths[0]);
    let discard = guest.ok(&format!("cat /sys/block/{name}/queue/discard_max_bytes"))?;
    ensure!(discard.trim() != "0", "the kernel sees no UNMAP");
    guest.ok(&format!(
        "set -e; d={}; tr '\\0' x < /dev/zero | dd of=$d bs=64k count=16 iflag=fullblock oflag=direct; \
         blkdiscard -o 65536 -l 131072 $d; \
         dd if=$d bs=64k skip=1 count=2 iflag=direct | tr -d '\\0' | wc -c | grep -qx 0; \
         dd if=$d bs=64k count=1 iflag=direct | tr -d x | wc -c | grep -qx 0",
        disk.paths[0]
    ))?;
    Ok(())
}
