//! The watchdog: opened when the member first has access, petted while it has, and closed in order only by a stop.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use crate::log;

/// A watchdog device (`Documentation/watchdog/watchdog-api.rst` of the kernel).
#[derive(Debug)]
pub struct Watchdog {
    path: PathBuf,
    open: Option<File>,
    /// It will not be petted again: this member has lost.
    given_up: bool,
}

impl Watchdog {
    /// One that is not yet running.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            open: None,
            given_up: false,
        }
    }

    /// Pets it; the first time starts it.
    ///
    /// # Errors
    /// When it cannot be opened: then nothing would reset this member, and it must not go on.
    pub fn pet(&mut self) -> io::Result<()> {
        if self.given_up {
            return Ok(());
        }
        if self.open.is_none() {
            self.open = Some(OpenOptions::new().write(true).open(&self.path)?);
            log::line(
                5,
                &format!("the watchdog {} is running", self.path.display()),
            );
        }
        match &mut self.open {
            Some(file) => file.write_all(b"1"),
            None => Ok(()),
        }
    }

    /// It is not petted any more; it resets the machine when its time is up. The file stays open.
    pub fn give_up(&mut self) {
        if self.open.is_some() && !self.given_up {
            log::line(
                3,
                "the watchdog is not petted any more: it will reset this machine",
            );
        }
        self.given_up = true;
    }

    /// Stops it in order (the magic close), unless it was given up.
    pub fn close(&mut self) {
        if self.given_up {
            return;
        }
        if let Some(mut file) = self.open.take()
            && let Err(error) = file.write_all(b"V")
        {
            log::line(3, &format!("the watchdog cannot be stopped: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_stopped_only_in_order() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = || std::fs::read_to_string(file.path()).unwrap();
        let mut watchdog = Watchdog::new(file.path().to_owned());
        assert_eq!(text(), "");
        watchdog.pet().unwrap();
        watchdog.pet().unwrap();
        watchdog.close();
        assert_eq!(text(), "11V");
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut watchdog = Watchdog::new(file.path().to_owned());
        watchdog.pet().unwrap();
        watchdog.give_up();
        watchdog.pet().unwrap();
        watchdog.close();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "1");
    }
}
