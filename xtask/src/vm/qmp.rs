//! QEMU's machine protocol: one command at a time, each over a connection of its own.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// Runs a command without arguments; returns when QEMU has done it.
///
/// # Errors
/// When QEMU is gone, refuses, or does not answer within half a minute.
pub fn execute(socket: &Path, command: &str) -> Result<()> {
    let stream = UnixStream::connect(socket)
        .with_context(|| format!("cannot reach QEMU at {}", socket.display()))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut lines = BufReader::new(stream);
    let mut greeting = String::new();
    lines.read_line(&mut greeting)?;
    for execute in ["qmp_capabilities", command] {
        writeln!(lines.get_mut(), "{}", json!({ "execute": execute }))?;
        answer(&mut lines).with_context(|| format!("QEMU's answer to {execute}"))?;
    }
    Ok(())
}

/// Reads on until the answer; what comes before it are events.
fn answer(lines: &mut impl BufRead) -> Result<()> {
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        let said: Value = serde_json::from_str(&line)?;
        if said.get("return").is_some() {
            return Ok(());
        }
        if let Some(error) = said.get("error") {
            bail!("QEMU refused: {error}");
        }
        line.clear();
    }
    bail!("QEMU closed the connection")
}

#[cfg(test)]
mod tests {
    use super::answer;

    #[test]
    fn events_before_the_answer_are_passed_over() {
        let mut text =
            "{\"event\": \"STOP\"}\n{\"return\": {}}\n{\"event\": \"RESUME\"}\n".as_bytes();
        assert!(answer(&mut text).is_ok());
        assert!(text.starts_with(b"{\"event\": \"RESUME\"}"));
    }

    #[test]
    fn a_refusal_and_an_end_are_errors() {
        let refused = answer(&mut "{\"error\": {\"class\": \"GenericError\"}}\n".as_bytes());
        assert!(refused.is_err_and(|error| error.to_string().contains("GenericError")));
        assert!(answer(&mut "{\"event\": \"STOP\"}\n".as_bytes()).is_err());
    }
}
