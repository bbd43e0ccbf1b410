//! Pacemaker's fence agent for shared disks, as a cluster would call it.

use anyhow::{Result, ensure};

use super::lab::Lab;

/// `on` for both nodes, `off` for one by the other while both write: the fenced one stops, the survivor goes on, and
/// the fenced one comes back with `on`.
pub fn fence_scsi(lab: &mut Lab) -> Result<()> {
    let disk = lab.volume("fence", 64)?;
    lab.login(0, 1, &disk)?;
    lab.login(1, 1, &disk)?;
    let path = &disk.paths[0];
    let agent = |action: &str, key: &str| format!("fence_scsi -o {action} -k {key} -d {path}");

    let metadata = lab.guests[0].ok("fence_scsi -o metadata")?;
    ensure!(
        metadata.contains("<resource-agent name=\"fence_scsi\""),
        "{metadata}"
    );
    lab.guests[0].ok(&agent("on", "a1"))?;
    lab.guests[1].ok(&agent("on", "b2"))?;
    for guest in &mut lab.guests {
        guest.ok(&agent("status", "a1"))?;
        guest.ok(&agent("status", "b2"))?;
    }

    // Each node writes its own half until it fails or is told to stop.
    for (index, guest) in lab.guests.iter_mut().enumerate() {
        guest.ok(&format!(
            "rm -f /tmp/stop; (while [ ! -e /tmp/stop ]; do \
             dd if=/dev/zero of={path} bs=64k count=16 seek={} oflag=direct conv=notrunc || {{ echo failed; exit; }}; done; \
             echo stopped) >/tmp/writer.log 2>&1 &",
            index * 256
        ))?;
    }
    lab.guests[1].ok("sleep 1")?;
    lab.guests[1].ok(&agent("off", "a1"))?;
    // fence_scsi has returned: from here on not one write of the fenced node lands.
    ensure!(
        !lab.guests[0].can_write(path)?,
        "the fenced node writes after 'off' returned"
    );
    lab.guests[0].wait_until(
        "grep -q ^failed /tmp/writer.log",
        20,
        "tail -5 /tmp/writer.log",
    )?;
    lab.guests[1].ok("sleep 1; touch /tmp/stop")?;
    lab.guests[1].wait_until(
        "grep -qE '^(stopped|failed)' /tmp/writer.log",
        20,
        "tail -5 /tmp/writer.log",
    )?;
    let survivor = lab.guests[1].ok("tail -5 /tmp/writer.log")?;
    ensure!(
        survivor.contains("stopped"),
        "the survivor's writes failed: {survivor}"
    );
    lab.guests[0].fails(&agent("status", "a1"))?;
    ensure!(
        lab.guests[0].can_read(path)?,
        "write-exclusive lets the fenced node read"
    );

    // After its reboot the node is let in again.
    lab.guests[0].ok(&agent("on", "a1"))?;
    ensure!(
        lab.guests[0].can_write(path)?,
        "the node cannot write after 'on'"
    );
    Ok(())
}
