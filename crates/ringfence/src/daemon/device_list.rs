//! `STATE/devices.json`: which devices to open at start. Everything else is on the devices themselves.
//!
//! An entry is written as *unsettled* before its device joins or leaves the pool, and settled after it, so that a
//! crash in between loses no device: at start an unsettled one is used if the pool knows it and forgotten if not.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The name of the list in the state directory.
pub const LIST_NAME: &str = "devices.json";

const VERSION: u32 = 1;

/// A device to open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Where it is, absolute.
    pub path: PathBuf,
    /// Open it with O_DIRECT.
    #[serde(default)]
    pub direct: bool,
    /// It was joining or leaving the pool when this was written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsettled: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    devices: Vec<Entry>,
}

/// The list, as it is on disk.
#[derive(Debug)]
pub struct DeviceList {
    state: PathBuf,
    entries: Vec<Entry>,
}

impl DeviceList {
    /// Reads the list of `state`; there is none before the first device. One that cannot be understood is an
    /// error: to start without the devices would look as if there were no volumes.
    pub fn load(state: &Path) -> Result<Self, Failure> {
        let path = state.join(LIST_NAME);
        let advice = "it lists the paths of the pool's devices; repair or restore it (to start without any device remove it)";
        let damaged = |why: String| {
            Failure::failed(format!("{} cannot be used: {why}", path.display())).advise(advice)
        };
        let entries = match std::fs::read(&path) {
            Ok(bytes) => {
                let content: Content =
                    serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
                if content.version != VERSION {
                    return Err(damaged(format!(
                        "it has version {}, this program knows {VERSION}",
                        content.version
                    )));
                }
                content.devices
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(damaged(error.to_string())),
        };
        Ok(Self {
            state: state.to_owned(),
            entries,
        })
    }

    /// The entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of `path`.
    pub fn get(&self, path: &Path) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.path == path)
    }

    /// Adds `entry`, or puts it in the place of the one with its path.
    pub fn put(&mut self, entry: Entry) -> io::Result<()> {
        let mut entries = self.entries.clone();
        entries.retain(|other| other.path != entry.path);
        entries.push(entry);
        self.store(entries)
    }

    /// Removes the entry of `path`, if there is one.
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        let mut entries = self.entries.clone();
        entries.retain(|other| other.path != path);
        self.store(entries)
    }

    /// Removes all entries.
    pub fn clear(&mut self) -> io::Result<()> {
        self.store(Vec::new())
    }

    /// Settles `path` one way or the other.
    pub fn settle(&mut self, path: &Path) -> io::Result<()> {
        let mut entries = self.entries.clone();
        for entry in &mut entries {
            if entry.path == path {
                entry.unsettled = false;
            }
        }
        self.store(entries)
    }

    /// Durable when it returns: a new file, then a rename over the old one.
    fn store(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        let content = Content {
            version: VERSION,
            devices: entries,
        };
        let mut bytes = serde_json::to_vec_pretty(&content)?;
        bytes.push(b'\n');
        let unborn = self.state.join(format!("{LIST_NAME}.new"));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unborn)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&unborn, self.state.join(LIST_NAME))?;
        File::open(&self.state)?.sync_all()?;
        self.entries = content.devices;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, unsettled: bool) -> Entry {
        Entry {
            path: path.into(),
            direct: false,
            unsettled,
        }
    }

    #[test]
    fn the_list_survives() {
        let dir = tempfile::tempdir().unwrap();
        let mut list = DeviceList::load(dir.path()).unwrap();
        assert!(list.entries().is_empty());
        list.put(entry("/a", true)).unwrap();
        list.put(entry("/b", true)).unwrap();
        list.settle(Path::new("/a")).unwrap();
        let list = DeviceList::load(dir.path()).unwrap();
        assert_eq!(list.entries(), [entry("/a", false), entry("/b", true)]);
        let mut list = list;
        list.put(entry("/a", true)).unwrap();
        list.remove(Path::new("/b")).unwrap();
        let list = DeviceList::load(dir.path()).unwrap();
        assert_eq!(list.entries(), [entry("/a", true)]);
        assert_eq!(list.get(Path::new("/a")), Some(&entry("/a", true)));
        let mut list = list;
        list.clear().unwrap();
        assert!(DeviceList::load(dir.path()).unwrap().entries().is_empty());
    }

    #[test]
    fn a_damaged_list_is_an_error_and_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        for bad in [
            "",
            "{",
            "[]",
            r#"{"version":2,"devices":[]}"#,
            r#"{"version":1,"devices":[{"path":"/a","x":1}]}"#,
        ] {
            std::fs::write(dir.path().join(LIST_NAME), bad).unwrap();
            let failure = DeviceList::load(dir.path()).unwrap_err();
            assert!(failure.advice.is_some(), "{bad}: {failure}");
        }
    }
}
