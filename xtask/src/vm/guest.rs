//! One guest: QEMU, and a virtio-serial port at whose other end the guest's init runs the commands sent to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{Background, command, tail, wait_for};
use crate::vm::accelerator::Accelerator;
use crate::vm::image::Image;
use crate::vm::network::{Network, Seat};
use crate::vm::qmp;

/// A running guest. Dropped, it is switched off at once.
#[derive(Debug)]
pub struct Guest {
    /// Host name, for messages.
    pub name: String,
    /// iSCSI initiator name.
    pub initiator: String,
    accelerator: Accelerator,
    process: Background,
    console: PathBuf,
    qmp: PathBuf,
    port: BufReader<UnixStream>,
    next_id: u64,
}

/// What a command in the guest left behind.
#[derive(Debug)]
pub struct Answer {
    /// Exit code of the script.
    pub code: i32,
    /// Standard output and error, in the order written.
    pub text: String,
}

impl Guest {
    /// Starts guest number `number` (from 1) at its seat; it boots on while this returns. Files go to `folder`, beside those
    /// of an earlier guest of that number. `tar`, if there is one, is the guest's second disk, `/dev/vdb`.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn start(
        image: &Image,
        accelerator: Accelerator,
        network: &Network,
        seat: &Seat,
        number: u8,
        folder: &Path,
        tar: Option<&Path>,
    ) -> Result<Self> {
        let name = format!("guest{number}");
        let initiator = format!("iqn.2026-11.dev.ringfence.test:{name}");
        let boot = (1..)
            .find(|boot| !folder.join(format!("{name}.{boot}.console")).exists())
            .unwrap_or(u32::MAX);
        let files = Files {
            console: folder.join(format!("{name}.{boot}.console")),
            socket: folder.join(format!("{name}.{boot}.port")),
            qmp: folder.join(format!("{name}.{boot}.qmp")),
            tar: tar.map(Path::to_owned),
        };
        let qemu = qemu(image, accelerator, &name, &initiator, number, seat, &files);
        let process =
            Background::start(&network.inside(&qemu), &folder.join(format!("{name}.log")))?;
        let stream = wait_for("QEMU's socket", Duration::from_secs(10), || {
            UnixStream::connect(&files.socket).ok()
        })
        .with_context(|| process.log_tail())?;
        Ok(Self {
            name,
            initiator,
            accelerator,
            process,
            console: files.console,
            qmp: files.qmp,
            port: BufReader::new(stream),
            next_id: 1,
        })
    }

    /// Waits until the guest has booted.
    ///
    /// # Errors
    /// When it does not within two minutes (twelve under emulation); the message has the end of its console.
    pub fn wait_ready(&mut self) -> Result<()> {
        let limit = Duration::from_secs(120) * self.accelerator.patience();
        let line = self.read_line(limit)?;
        ensure!(
            line == format!("READY {}", self.name),
            "unexpected from the guest: {line}"
        );
        Ok(())
    }

    /// Runs a shell script to its end, whatever its exit code. `limit` is what it may take under KVM.
    ///
    /// # Errors
    /// When the guest is gone or the script takes too long.
    pub fn run_within(&mut self, script: &str, limit: Duration) -> Result<Answer> {
        let limit = limit * self.accelerator.patience();
        let id = self.next_id;
        self.next_id += 1;
        let line = format!("{id} {} {}\n", limit.as_secs(), base64(script.as_bytes()));
        self.port.get_mut().write_all(line.as_bytes())?;
        // The guest itself ends a script that takes too long; waiting longer is for a guest that hangs.
        let header = self
            .read_line(limit + Duration::from_secs(30))
            .with_context(|| format!("while {} ran: {script}", self.name))?;
        let words: Vec<&str> = header.split(' ').collect();
        let ["DONE", answered, code, length] = words[..] else {
            bail!("unexpected from {}: {header}", self.name);
        };
        ensure!(
            answered.parse() == Ok(id),
            "{} answered out of turn: {header}",
            self.name
        );
        let mut text = vec![0; length.parse()?];
        self.port.read_exact(&mut text)?;
        ensure!(
            code != "124",
            "on {}: still running after {} s:\n{script}\n{}",
            self.name,
            limit.as_secs(),
            String::from_utf8_lossy(&text)
        );
        Ok(Answer {
            code: code.parse()?,
            text: String::from_utf8_lossy(&text).into_owned(),
        })
    }

    /// [`Guest::run_within`] thirty seconds.
    ///
    /// # Errors
    /// As there.
    pub fn run(&mut self, script: &str) -> Result<Answer> {
        self.run_within(script, Duration::from_secs(30))
    }

    /// Runs a script that must succeed and returns its output.
    ///
    /// # Errors
    /// When it exits with another code than 0.
    pub fn ok(&mut self, script: &str) -> Result<String> {
        let answer = self.run(script)?;
        ensure!(
            answer.code == 0,
            "on {}: exit code {} from\n{script}\n{}",
            self.name,
            answer.code,
            tail(&answer.text, 40)
        );
        Ok(answer.text)
    }

    /// Waits until a condition of the shell holds, at most `seconds` under KVM.
    ///
    /// # Errors
    /// When it does not hold in time; the message has the output of `clue`.
    pub fn wait_until(&mut self, condition: &str, seconds: u64, clue: &str) -> Result<()> {
        let script = format!("until {condition}; do sleep 0.2; done");
        let limit = Duration::from_secs(seconds);
        match self.run_within(&script, limit) {
            Ok(_) => Ok(()),
            Err(error) => {
                let said = self.run(clue).map(|answer| answer.text).unwrap_or_default();
                Err(error.context(said))
            }
        }
    }

    /// Runs a script that must fail and returns its output.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn fails(&mut self, script: &str) -> Result<String> {
        let answer = self.run(script)?;
        ensure!(
            answer.code != 0,
            "on {}: should have failed but did not:\n{script}\n{}",
            self.name,
            answer.text
        );
        Ok(answer.text)
    }

    /// Writes a file in the guest, with the mode given as `chmod` takes it.
    ///
    /// # Errors
    /// When the guest is gone or the folder is not there.
    pub fn put(&mut self, path: &str, mode: &str, text: &str) -> Result<()> {
        let coded = base64(text.as_bytes());
        self.ok(&format!(
            "echo {coded} | base64 -d > {path} && chmod {mode} {path}"
        ))
        .map(drop)
    }

    /// Stops the guest's processor in the middle of whatever it does; its clock stands still too.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn pause(&self) -> Result<()> {
        qmp::execute(&self.qmp, "stop")
    }

    /// Lets a guest go on that was paused; for the guest no time has passed.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn go_on(&self) -> Result<()> {
        qmp::execute(&self.qmp, "cont")
    }

    /// Ends the guest as a power failure does.
    ///
    /// # Errors
    /// When the kernel refuses to end QEMU.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Waits until the guest has ended by itself, as it does when it is reset; returns all that its kernel and init printed.
    ///
    /// # Errors
    /// When it still runs after `limit` (six times that under emulation).
    pub fn wait_reset(&mut self, limit: Duration) -> Result<String> {
        let limit = limit * self.accelerator.patience();
        wait_for(&format!("{} to be reset", self.name), limit, || {
            self.process.check_running().is_err().then_some(())
        })
        .with_context(|| self.console_tail())?;
        Ok(String::from_utf8_lossy(&std::fs::read(&self.console)?).into_owned())
    }

    /// The last lines that the guest's kernel and init printed.
    pub fn console_tail(&self) -> String {
        tail(
            &std::fs::read_to_string(&self.console).unwrap_or_default(),
            40,
        )
    }

    fn read_line(&mut self, limit: Duration) -> Result<String> {
        let start = Instant::now();
        let mut line = Vec::new();
        self.port
            .get_ref()
            .set_read_timeout(Some(Duration::from_secs(1)))?;
        loop {
            match self.port.read_until(b'\n', &mut line) {
                Ok(_) if line.ends_with(b"\n") => break,
                Ok(_) => bail!("{} is gone:\n{}", self.name, self.console_tail()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            self.process.check_running()?;
            ensure!(
                start.elapsed() < limit,
                "{} gave no answer within {} s; its console ends with\n{}",
                self.name,
                limit.as_secs(),
                self.console_tail()
            );
        }
        // The rest of an answer comes at once.
        self.port
            .get_ref()
            .set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}

/// What QEMU makes and reads for one guest.
struct Files {
    console: PathBuf,
    socket: PathBuf,
    qmp: PathBuf,
    tar: Option<PathBuf>,
}

fn qemu(
    image: &Image,
    accelerator: Accelerator,
    name: &str,
    initiator: &str,
    number: u8,
    seat: &Seat,
    files: &Files,
) -> std::process::Command {
    let mut qemu = command("qemu-system-x86_64", accelerator.arguments());
    qemu.args(["-name", name, "-m", "512", "-smp", "1"]);
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    qemu.arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initrd);
    // no_timer_check: on a loaded machine an emulated timer may be late for the kernel's test of it, which panics.
    qemu.arg("-append").arg(format!(
        "console=ttyS0 no_timer_check root=/dev/vda rw init=/sbin/rf-init net.ifnames=0 panic=-1 rf.name={name} rf.iqn={initiator} rf.addr={}",
        seat.addresses.join(",")
    ));
    qemu.arg("-drive").arg(format!(
        "file={},format=raw,if=virtio,snapshot=on",
        image.root.display()
    ));
    if let Some(tar) = &files.tar {
        qemu.arg("-drive").arg(format!(
            "file={},format=raw,if=virtio,readonly=on",
            tar.display()
        ));
    }
    qemu.arg("-serial")
        .arg(format!("file:{}", files.console.display()));
    qemu.arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", files.qmp.display()));
    // A watchdog, which does nothing until somebody in the guest starts it.
    qemu.args(["-device", "i6300esb", "-action", "watchdog=reset"]);
    qemu.args(["-device", "virtio-serial-pci"]);
    qemu.arg("-chardev").arg(format!(
        "socket,id=rf,path={},server=on,wait=off",
        files.socket.display()
    ));
    qemu.args(["-device", "virtserialport,chardev=rf,name=rf"]);
    for (index, tap) in seat.taps.iter().enumerate() {
        qemu.arg("-netdev").arg(format!(
            "tap,id=net{index},ifname={tap},script=no,downscript=no"
        ));
        qemu.arg("-device").arg(format!(
            "virtio-net-pci,netdev=net{index},mac=52:54:00:77:{index:02x}:{number:02x}"
        ));
    }
    qemu
}

/// RFC 4648 base64, which the guest's `base64 -d` turns back; keeps a script of any content on one line.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let value = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for position in 0..4 {
            if position <= chunk.len() {
                let digit = (value >> (18 - 6 * position)) & 63;
                text.push(char::from(DIGITS[digit as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_of_rfc_4648_section_10() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
