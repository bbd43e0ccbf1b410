//! Reading the event log, over rotations and while it is written.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::Event;
use super::writer::rotated_path;

/// Reads the log of a directory from its oldest file on. [`Reader::poll`] gives what is new each time.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    rotated_files: u32,
    since: Option<Timestamp>,
    after_sequence: u64,
    current: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: BufReader<File>,
    inode: u64,
    offset_bytes: u64,
}

impl Open {
    fn new(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Ok(Some(Self {
                inode: file.metadata()?.ino(),
                file: BufReader::new(file),
                offset_bytes: 0,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next whole line, without its end. Half a line is left for the next time.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        self.file.read_until(b'\n', &mut line)?;
        if line.pop() == Some(b'\n') {
            self.offset_bytes += line.len() as u64 + 1;
            return Ok(Some(line));
        }
        self.file.seek(SeekFrom::Start(self.offset_bytes))?;
        Ok(None)
    }
}

impl Reader {
    /// A reader of the events of `directory` at or after `since`.
    pub fn new(directory: &Path, rotated_files: u32, since: Option<Timestamp>) -> Self {
        Self {
            directory: directory.to_owned(),
            rotated_files,
            since,
            after_sequence: 0,
            current: None,
        }
    }

    /// Gives every event that was not given before to `each`, oldest first, until that returns an error. Lines
    /// that are no event (torn by a crash, or of a newer version) are skipped.
    pub fn poll<E: From<io::Error>>(
        &mut self,
        mut each: impl FnMut(Event) -> Result<(), E>,
    ) -> Result<(), E> {
        // What is left of the file read last, which may have been rotated since; then the younger ones.
        if let Some(open) = &mut self.current {
            drain(open, self.since, &mut self.after_sequence, &mut each)?;
        }
        // Youngest first: a rotation meanwhile shows a file twice, but hides none.
        let mut younger = Vec::new();
        for n in 0..=self.rotated_files {
            let Some(open) = Open::new(&rotated_path(&self.directory, n))? else {
                continue;
            };
            if self.current.as_ref().is_some_and(|c| c.inode == open.inode) {
                break;
            }
            younger.push(open);
        }
        for mut open in younger.into_iter().rev() {
            drain(&mut open, self.since, &mut self.after_sequence, &mut each)?;
            self.current = Some(open);
        }
        Ok(())
    }
}

fn drain<E: From<io::Error>>(
    open: &mut Open,
    since: Option<Timestamp>,
    after_sequence: &mut u64,
    each: &mut impl FnMut(Event) -> Result<(), E>,
) -> Result<(), E> {
    while let Some(line) = open.line()? {
        let Ok(event) = serde_json::from_slice::<Event>(&line) else {
            continue;
        };
        // A file seen under two names during a rotation gives each event once.
        if event.sequence <= *after_sequence {
            continue;
        }
        *after_sequence = event.sequence;
        if since.is_none_or(|since| event.time >= since) {
            each(event)?;
        }
    }
    Ok(())
}

/// The largest sequence number in the log of `directory`, 0 when it is empty.
pub fn last_sequence(directory: &Path, rotated_files: u32) -> io::Result<u64> {
    // The youngest file that has an event has the largest number.
    for n in 0..=rotated_files {
        let Some(mut open) = Open::new(&rotated_path(directory, n))? else {
            continue;
        };
        let mut last = 0;
        drain(&mut open, None, &mut last, &mut |_| Ok::<(), io::Error>(()))?;
        if last > 0 {
            return Ok(last);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::super::What;
    use super::super::writer::{EventLog, Limits, LogFile};
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    fn stopped(reason: &str) -> (Timestamp, What) {
        let what = What::DaemonStopped {
            reason: reason.to_owned(),
        };
        (Timestamp::UNIX_EPOCH, what)
    }

    fn all(reader: &mut Reader) -> Vec<u64> {
        let mut seen = Vec::new();
        reader
            .poll(|event| {
                seen.push(event.sequence);
                Ok::<(), io::Error>(())
            })
            .unwrap();
        seen
    }

    const SMALL: Limits = Limits {
        file_bytes: 400,
        rotated_files: 3,
    };

    #[test]
    fn rotation_keeps_the_newest_events_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(dir.path(), SMALL).unwrap();
        for i in 0..40 {
            log.append([stopped(&format!("event {i}"))]).unwrap();
        }
        for n in 0..=3 {
            let size = std::fs::metadata(rotated_path(dir.path(), n))
                .unwrap()
                .len();
            assert!(size <= SMALL.file_bytes, "file {n} has {size} bytes");
        }
        assert!(!rotated_path(dir.path(), 4).exists());
        let seen = all(&mut Reader::new(dir.path(), 3, None));
        assert_eq!(seen.last(), Some(&40));
        assert!(
            seen.len() > 4 && seen.windows(2).all(|w| w[1] == w[0] + 1),
            "{seen:?}"
        );
    }

    #[test]
    fn one_batch_may_span_several_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(dir.path(), SMALL).unwrap();
        log.append((0..12).map(|i| stopped(&format!("event {i}"))))
            .unwrap();
        assert_eq!(all(&mut Reader::new(dir.path(), 3, None)).last(), Some(&12));
        assert!(rotated_path(dir.path(), 1).exists());
    }

    #[test]
    fn an_event_larger_than_a_file_is_kept_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(dir.path(), SMALL).unwrap();
        log.append([stopped(&"x".repeat(1000)), stopped("y")])
            .unwrap();
        assert_eq!(all(&mut Reader::new(dir.path(), 3, None)), [1, 2]);
    }

    #[test]
    fn a_torn_last_line_is_ended_and_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(dir.path(), Limits::default()).unwrap();
        log.append([stopped("a"), stopped("b")]).unwrap();
        drop(log);
        let path = rotated_path(dir.path(), 0);
        let length = std::fs::metadata(&path).unwrap().len();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length - 9)
            .unwrap();

        let mut log = LogFile::open(dir.path(), Limits::default()).unwrap();
        log.append([stopped("c")]).unwrap();
        let mut reasons = Vec::new();
        Reader::new(dir.path(), 8, None)
            .poll(|event| {
                reasons.push((event.sequence, event.what));
                Ok::<(), io::Error>(())
            })
            .unwrap();
        assert_eq!(reasons, [(1, stopped("a").1), (2, stopped("c").1)]);
    }

    #[test]
    fn numbers_go_on_after_a_restart_right_after_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(dir.path(), Limits::default()).unwrap();
        log.append([stopped("a")]).unwrap();
        std::fs::rename(rotated_path(dir.path(), 0), rotated_path(dir.path(), 1)).unwrap();
        let mut log = LogFile::open(dir.path(), Limits::default()).unwrap();
        log.append([stopped("b")]).unwrap();
        assert_eq!(all(&mut Reader::new(dir.path(), 8, None)), [1, 2]);
    }

    #[test]
    fn a_follower_sees_every_event_once_over_rotations_and_half_lines() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(dir.path(), SMALL).unwrap();
        let mut reader = Reader::new(dir.path(), 3, None);
        let mut seen = all(&mut reader);
        for i in 0..30 {
            log.append([stopped(&format!("event {i}"))]).unwrap();
            if i % 3 == 0 {
                seen.extend(all(&mut reader));
            }
        }
        seen.extend(all(&mut reader));
        assert_eq!(seen, (1..=30).collect::<Vec<_>>());

        let line = r#"{"sequence":31,"time":"2026-01-01T00:00:00Z","event":"daemon-stopped","reason":"half"}"#;
        let mut raw = File::options()
            .append(true)
            .open(rotated_path(dir.path(), 0))
            .unwrap();
        raw.write_all(&line.as_bytes()[..20]).unwrap();
        assert!(all(&mut reader).is_empty());
        raw.write_all(&line.as_bytes()[20..]).unwrap();
        raw.write_all(b"\n").unwrap();
        assert_eq!(all(&mut reader), [31]);
    }

    #[test]
    fn since_leaves_out_what_was_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(dir.path(), Limits::default()).unwrap();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        log.append((0..5).map(|s| (at(s), stopped("x").1))).unwrap();
        assert_eq!(all(&mut Reader::new(dir.path(), 8, Some(at(3)))), [4, 5]);
    }

    #[test]
    fn the_thread_writes_wakes_and_stops() {
        let dir = tempfile::tempdir().unwrap();
        let (log, thread) = EventLog::start(dir.path(), Limits::default()).unwrap();
        let before = log.written();
        log.record(stopped("a").1);
        assert!(log.wait(before, Duration::from_secs(10)));
        assert_eq!(all(&mut Reader::new(dir.path(), 8, None)), [1]);
        log.record(stopped("b").1);
        log.settle();
        assert_eq!(all(&mut Reader::new(dir.path(), 8, None)), [1, 2]);
        log.record(stopped("c").1);
        thread.stop();
        assert!(
            !log.wait(u64::MAX, Duration::from_secs(10)),
            "no more comes"
        );
        assert_eq!(all(&mut Reader::new(dir.path(), 8, None)), [1, 2, 3]);
    }
}
