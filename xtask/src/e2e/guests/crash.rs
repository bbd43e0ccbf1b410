//! kill -9 of the daemon while a guest writes.

use anyhow::{Result, ensure};

use super::lab::Lab;

/// The guest's I/O goes on after the restart with nothing lost, and keys and reservation are as before.
pub fn kill_during_io(lab: &mut Lab) -> Result<()> {
    let disk = lab.volume("crash", 64)?;
    lab.login(0, 1, &disk)?;
    lab.login(1, 1, &disk)?;
    let path = &disk.paths[0];
    lab.guests[0].ok(&format!(
        "sg_persist -n --out --register --param-sark=0xa1 {path} && sg_persist -n --out --reserve --param-rk=0xa1 --prout-type=5 {path}"
    ))?;
    ensure!(!lab.guests[1].can_write(path)?, "a stranger may write");
    let full_status = format!("sg_persist -n --in --read-full-status {path}");
    let before = lab.guests[0].ok(&full_status)?;
    let listed_before = listed_keys(lab, &disk.volume)?;

    lab.guests[0].ok(&format!(
        "(fio --name=job --filename=$(readlink -f {path}) --size=16m --bs=4k --rw=randwrite --verify=crc32c --do_verify=1 --direct=1 \
         --ioengine=libaio --iodepth=8 --thread --rate_iops=250; echo exit $?) >/tmp/fio.log 2>&1 &"
    ))?;
    for _ in 0..2 {
        lab.guests[0].ok("sleep 2; ! grep ^exit /tmp/fio.log || { cat /tmp/fio.log; exit 1; }")?;
        lab.target.common().kill()?;
        lab.guests[0].ok("sleep 1")?;
        lab.target.common().start()?;
    }
    let guest = &mut lab.guests[0];
    guest.wait_until("grep -q ^exit /tmp/fio.log", 60, "cat /tmp/fio.log")?;
    guest.ok("grep -x 'exit 0' /tmp/fio.log || { cat /tmp/fio.log; exit 1; }")?;
    let after = lab.guests[0].ok(&format!("sg_turs {path}; sg_turs {path}; {full_status}"))?;
    let after = after
        .split_once("PR generation")
        .map(|(_, rest)| rest.to_owned());
    let before = before
        .split_once("PR generation")
        .map(|(_, rest)| rest.to_owned());
    ensure!(
        before.is_some() && after == before,
        "keys before\n{before:?}\nand after\n{after:?}"
    );
    let listed_after = listed_keys(lab, &disk.volume)?;
    ensure!(
        listed_before == listed_after,
        "keys --json before {listed_before:?} and after {listed_after:?}"
    );
    ensure!(
        !lab.guests[1].can_write(path)?,
        "a stranger may write after the restart"
    );
    ensure!(
        lab.guests[0].can_write(path)?,
        "the holder may not write after the restart"
    );
    Ok(())
}

fn listed_keys(lab: &Lab, volume: &str) -> Result<Option<[serde_json::Value; 3]>> {
    let Some(ringfence) = lab.target.ringfence() else {
        return Ok(None);
    };
    let keys = ringfence.cli_json(&["keys", volume])?;
    Ok(Some(
        ["generation", "reservation", "registrations"].map(|part| keys[part].clone()),
    ))
}
