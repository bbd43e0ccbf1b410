//! The witness of a pool of two devices: a small file in the state directory with a copy of the configuration and of
//! the keys, so that either device may be lost without the pool losing its majority.

use std::path::{Path, PathBuf};

/// How the names of witness files begin.
const PREFIX: &str = "witness";

/// The witness files in `state`, by name.
pub fn files(state: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(state) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(PREFIX) && name.ends_with(".img")
        })
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

/// A path in `state` for a new witness: none of a file that is there.
pub fn new_path(state: &Path) -> PathBuf {
    let taken = files(state);
    let free = (1..=taken.len() as u64 + 1)
        .map(|number| match number {
            1 => state.join(format!("{PREFIX}.img")),
            _ => state.join(format!("{PREFIX}-{number}.img")),
        })
        .find(|path| !taken.contains(path));
    // Of n + 1 names at most n are taken.
    free.unwrap_or_else(|| state.join(format!("{PREFIX}-new.img")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_witnesses_are_never_used_twice() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("devices.json"), "{}").unwrap();
        assert!(files(dir.path()).is_empty());
        let mut made = Vec::new();
        for _ in 0..3 {
            let path = new_path(dir.path());
            assert!(!made.contains(&path));
            std::fs::write(&path, "").unwrap();
            made.push(path);
        }
        made.sort();
        assert_eq!(files(dir.path()), made);
        std::fs::remove_file(&made[0]).unwrap();
        assert_eq!(new_path(dir.path()), made[0]);
    }
}
