//! A file system on the shared disk, written by one guest and read by the other.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::lab::Lab;

/// ext4, fio with checksums, fsck; then the other guest mounts it and verifies the same data.
pub fn ext4_and_fio(lab: &mut Lab) -> Result<()> {
    let disk = lab.volume("filesystem", 128)?;
    lab.login(0, 1, &disk)?;
    lab.login(1, 1, &disk)?;
    let path = &disk.paths[0];
    let stand_in = lab.target.ringfence().is_none();
    let job = "fio --name=job --filename=/mnt/data --size=24m --bs=4k --rw=randwrite --verify=crc32c \
               --ioengine=libaio --direct=1 --iodepth=16 --randseed=7 --thread --output-format=terse";
    let writes = format!(
        "set -e; mkfs.ext4 -q -F {path}; mount {path} /mnt; {job} --do_verify=1 --fsync=64; \
         cp -a /usr/bin/fio /mnt/; fstrim /mnt || [ {stand_in} = true ]; sync; sha256sum < /mnt/fio; umount /mnt; fsck.ext4 -f -n {path}"
    );
    let written = lab.guests[0].run_within(&writes, Duration::from_secs(120))?;
    ensure!(written.code == 0, "writing: {}", written.text);
    let reads = format!(
        "set -e; blockdev --flushbufs {path}; mount {path} /mnt; {job} --verify_only=1; sha256sum < /mnt/fio; \
         sha256sum < /usr/bin/fio; umount /mnt"
    );
    let read = lab.guests[1].run_within(&reads, Duration::from_secs(120))?;
    ensure!(read.code == 0, "reading on the other guest: {}", read.text);
    let sums: Vec<&str> = read
        .text
        .lines()
        .filter(|line| line.ends_with(" -"))
        .collect();
    ensure!(
        sums.len() == 2 && sums[0] == sums[1],
        "a file arrived changed: {}",
        read.text
    );
    Ok(())
}
