//! What the demo says, at a pace that can be read.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Speaks on stdout.
pub struct Narrator {
    styled: bool,
    pause: Duration,
}

impl Narrator {
    /// Pauses between the chapters when `paced`.
    pub fn new(paced: bool) -> Self {
        let millis = if paced { 900 } else { 0 };
        Self {
            styled: io::stdout().is_terminal(),
            pause: Duration::from_millis(millis),
        }
    }

    /// Begins a chapter.
    pub fn chapter(&self, title: &str) {
        std::thread::sleep(self.pause);
        let (on, off) = if self.styled {
            ("\x1b[1m", "\x1b[0m")
        } else {
            ("", "")
        };
        self.print(&format!("\n{on}== {title}{off}\n"));
    }

    /// Explains.
    pub fn say(&self, text: &str) {
        self.print(&format!("{text}\n"));
    }

    /// Shows what a machine did and what came of it.
    pub fn act(&self, who: &str, what: &str, outcome: &str) {
        self.print(&format!("   {who:<5} {what:<58} {outcome}\n"));
    }

    /// Shows a command as it would be typed, and what it printed.
    pub fn command(&self, arguments: &[&str], printed: &str) {
        let (on, off) = if self.styled {
            ("\x1b[36m", "\x1b[0m")
        } else {
            ("", "")
        };
        let line: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
        let mut text = format!("   {on}$ ringfence {}{off}\n", line.join(" "));
        for line in printed.lines() {
            text.push_str(if line.is_empty() { "" } else { "     " });
            text.push_str(line);
            text.push('\n');
        }
        self.print(&text);
    }

    fn print(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        // When nobody reads any more the demo still goes through and cleans up.
        let _ = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
    }
}

fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/,=+".contains(c);
    if argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{argument}'")
    }
}
