//! QEMU's own iSCSI driver: images made, written, copied and compared over `iscsi://`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::context::Context;
use crate::process::{command, finish, run};
use crate::targets::layout::Layout;

const SIZE_MIB: u32 = 64;

/// `qemu-img create`, `convert` and `compare`, and `qemu-io` with patterns, discard and flush.
///
/// # Errors
/// When a command fails or data differ.
pub fn run_scenario(context: &Context, layout: Layout) -> Result<String> {
    let folder = context.folder(&format!("qemu-{}", layout.name()))?;
    let mut target = context.start_target(&folder, 1, layout)?;
    let raw = target.create_volume("raw", SIZE_MIB, 512)?;
    let raw = target.url(0, raw);
    let copy = target.create_volume("copy", SIZE_MIB, 512)?;
    let copy = target.url(0, copy);
    let large_blocks = target.create_volume("large-blocks", SIZE_MIB, 4096)?;
    let large_blocks = target.url(0, large_blocks);
    let container = target.create_volume("container", SIZE_MIB, 512)?;
    let container = target.url(0, container);

    patterns(&raw)?;
    large_block_patterns(&large_blocks)?;
    copies(&folder, &raw, &copy)?;
    qcow2(&folder, &container)?;
    target.check_running()?;
    Ok("qemu-img create, convert, compare; qemu-io".into())
}

/// Runs `qemu-io` commands on a raw image; all must succeed.
fn qemu_io(url: &str, format: &str, commands: &[&str]) -> Result<String> {
    let mut io = command("qemu-io", ["-d", "unmap", "-f", format]);
    for each in commands {
        io.args(["-c", each]);
    }
    let text = run(io.arg(url))?;
    ensure!(
        !text.contains("verification failed") && !text.contains("failed:"),
        "{text}"
    );
    Ok(text)
}

fn patterns(url: &str) -> Result<()> {
    qemu_io(
        url,
        "raw",
        &[
            "write -P 0x5a 0 1M",
            "write -f -P 0xa5 1M 64k",
            "aio_write -P 0x11 8M 4M",
            "aio_write -P 0x22 12M 4M",
            "aio_flush",
            "flush",
            "write -z -u 256k 64k",
            "discard 512k 128k",
            "writev -P 0x33 20M 4k 8k 12k",
        ],
    )?;
    // A new connection reads what the old one wrote.
    qemu_io(
        url,
        "raw",
        &[
            "read -P 0x5a 0 256k",
            "read -P 0 256k 64k",
            "read -P 0x5a 320k 192k",
            "read -P 0 512k 128k",
            "read -P 0x5a 640k 384k",
            "read -P 0xa5 1M 64k",
            "read -P 0x11 8M 4M",
            "read -P 0x22 12M 4M",
            "read -P 0x33 20M 24k",
            "read -P 0 63M 1M",
        ],
    )?;
    let past_the_end = finish(
        command("qemu-io", ["-f", "raw", "-c", "read 64M 4k"]).arg(url),
        Duration::from_secs(60),
    )?;
    ensure!(
        past_the_end.code != 0,
        "a read past the end succeeded: {}",
        past_the_end.text()
    );
    Ok(())
}

/// Small transfers only: before a read of 32 KiB or more QEMU's driver asks for the block status of 7ffffe00h bytes, and
/// fails its own assertion that this is a multiple of 4096.
fn large_block_patterns(url: &str) -> Result<()> {
    qemu_io(
        url,
        "raw",
        &[
            "write -P 0x61 0 1M",
            "write -P 0x62 4k 4k",
            "write -P 0x63 1023k 2k",
            "flush",
        ],
    )?;
    qemu_io(
        url,
        "raw",
        &[
            "read -P 0x61 0 4k",
            "read -P 0x62 4k 4k",
            "read -P 0x61 8k 16k",
            "read -P 0x63 1023k 2k",
        ],
    )
    .map(drop)
}

/// A file to a volume, the volume to another, and back to a file: all the same.
fn copies(folder: &Path, first: &str, second: &str) -> Result<()> {
    let source = folder.join("source.img");
    let back = folder.join("back.img");
    let mut bytes = vec![0_u8; (SIZE_MIB as usize) << 20];
    let mut state = 0x9e37_79b9_u32;
    for chunk in bytes.chunks_mut(4096).step_by(3) {
        for byte in chunk {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = state.to_be_bytes()[0];
        }
    }
    std::fs::write(&source, bytes)?;
    let (source, back) = (source.to_string_lossy(), back.to_string_lossy());
    let image = |args: &[&str]| run(command("qemu-img", args).env("LC_ALL", "C"));
    image(&["convert", "-n", "-f", "raw", "-O", "raw", &source, first])?;
    image(&["compare", "-f", "raw", "-F", "raw", &source, first])?;
    image(&[
        "convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw", first, second,
    ])?;
    image(&["convert", "-f", "raw", "-O", "raw", second, &back])?;
    image(&["compare", "-f", "raw", "-F", "raw", &source, &back])?;
    qemu_io(second, "raw", &["write -P 0x77 0 512k"])?;
    let differs = finish(
        &mut command(
            "qemu-img",
            ["compare", "-f", "raw", "-F", "raw", &source, second],
        ),
        Duration::from_secs(60),
    )?;
    ensure!(
        differs.code == 1,
        "compare does not see a changed volume: {}",
        differs.text()
    );
    Ok(())
}

/// A qcow2 image that lives on the volume.
fn qcow2(folder: &Path, url: &str) -> Result<()> {
    run(&mut command(
        "qemu-img",
        ["create", "-f", "qcow2", url, "32M"],
    ))?;
    qemu_io(
        url,
        "qcow2",
        &["write -P 0x42 1M 1M", "write -P 0x43 30M 2M", "flush"],
    )?;
    qemu_io(
        url,
        "qcow2",
        &[
            "read -P 0x42 1M 1M",
            "read -P 0x43 30M 2M",
            "read -P 0 0 1M",
        ],
    )?;
    run(&mut command("qemu-img", ["check", "-f", "qcow2", url]))?;
    let plain = folder.join("plain.img");
    let plain = plain.to_string_lossy();
    run(&mut command(
        "qemu-img",
        ["convert", "-f", "qcow2", "-O", "raw", url, &plain],
    ))?;
    run(&mut command(
        "qemu-img",
        ["compare", "-f", "qcow2", "-F", "raw", url, &plain],
    ))
    .map(drop)
}
