//! dm-multipath over two portals, and reservations through `mpathpersist`.

use anyhow::{Context, Result, ensure};

use super::lab::{Disk, Lab};
use crate::vm::guest::Guest;

/// Both paths are one disk; a path lost during I/O is survived; keys are on both paths, and a preempt takes both.
pub fn two_portals(lab: &mut Lab) -> Result<()> {
    let disk = lab.volume("multipath", 64)?;
    lab.ping_seconds = 3;
    lab.login(0, 2, &disk)?;
    lab.login(1, 2, &disk)?;
    let maps = [
        assemble(&mut lab.guests[0], &disk)?,
        assemble(&mut lab.guests[1], &disk)?,
    ];

    let register =
        |key: &str, map: &str| format!("mpathpersist --out --register --param-sark={key} {map}");
    lab.guests[0].ok(&register("0xa1", &maps[0]))?;
    lab.guests[1].ok(&register("0xb2", &maps[1]))?;
    let keys = lab.guests[0].ok(&format!("mpathpersist --in --read-keys {}", maps[0]))?;
    ensure!(
        keys.matches("0xa1").count() == 2 && keys.matches("0xb2").count() == 2,
        "each node's key on both paths: {keys}"
    );
    lab.guests[0].ok(&format!(
        "mpathpersist --out --reserve --param-rk=0xa1 --prout-type=5 {}",
        maps[0]
    ))?;
    let reservation =
        lab.guests[1].ok(&format!("mpathpersist --in --read-reservation {}", maps[1]))?;
    ensure!(reservation.to_lowercase().contains("0xa1"), "{reservation}");

    lose_a_path(lab, &maps[0])?;

    let map = &maps[1];
    lab.guests[1].ok(&format!(
        "mpathpersist --out --preempt --param-rk=0xb2 --param-sark=0xa1 --prout-type=5 {map}"
    ))?;
    ensure!(
        !lab.guests[0].can_write(&maps[0])?,
        "the preempted node still writes"
    );
    ensure!(lab.guests[1].can_write(map)?, "the survivor cannot write");
    lab.guests[1].ok(&format!("mpathpersist --out --clear --param-rk=0xb2 {map}"))?;
    ensure!(
        lab.guests[0].can_write(&maps[0])?,
        "nothing is reserved, yet the write fails"
    );
    for guest in &mut lab.guests {
        guest.ok("multipathd shutdown; sleep 1; multipath -F")?;
    }
    Ok(())
}

/// Starts multipathd and waits for the map with both paths.
fn assemble(guest: &mut Guest, disk: &Disk) -> Result<String> {
    guest.ok("mkdir -p /etc/multipath; multipathd; multipath >/dev/null; true")?;
    // multipathd takes the identity that udev's rules prefer.
    let wwid = guest.ok(&format!(
        "udevadm info --query=property --property=ID_SERIAL --value {}",
        disk.paths[0]
    ))?;
    let map = format!("/dev/mapper/{}", wwid.trim());
    wait_for_paths(guest, &map)?;
    Ok(map)
}

fn wait_for_paths(guest: &mut Guest, map: &str) -> Result<()> {
    let name = map.trim_start_matches("/dev/mapper/");
    let both = format!("[ $(multipath -ll {name} | grep -c 'active ready') = 2 ]");
    guest.wait_until(&both, 20, "multipath -ll; multipathd show paths")
}

/// fio goes on while one link is down, and the path comes back after it.
fn lose_a_path(lab: &mut Lab, map: &str) -> Result<()> {
    let guest = &mut lab.guests[0];
    guest.ok("for s in /sys/class/iscsi_session/*; do echo 3 > $s/recovery_tmo; done")?;
    guest.ok(&format!(
        "(fio --name=job --filename={map} --size=8m --bs=4k --rw=randwrite --verify=crc32c --do_verify=1 --direct=1 \
         --ioengine=libaio --iodepth=4 --thread --rate_iops=100; echo exit $?) >/tmp/fio.log 2>&1 &"
    ))?;
    guest.ok("sleep 2")?;
    lab.network.set_link(1, 0, false)?;
    let noticed = lab.guests[0].wait_until(
        "multipathd show paths format '%d %t %T' | grep -q faulty",
        20,
        "multipath -ll; multipathd show paths; cat /tmp/fio.log",
    );
    lab.network.set_link(1, 0, true)?;
    noticed.context("the lost path")?;
    let guest = &mut lab.guests[0];
    guest.wait_until(
        "grep -q ^exit /tmp/fio.log",
        30,
        "multipath -ll; cat /tmp/fio.log",
    )?;
    guest.ok("grep -x 'exit 0' /tmp/fio.log || { cat /tmp/fio.log; exit 1; }")?;
    wait_for_paths(guest, map).context("the path after the link is back")
}
