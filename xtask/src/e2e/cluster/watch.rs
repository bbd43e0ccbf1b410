//! What lies on the devices at the moment in which the head says that a node has lost its access. The head writes that event when
//! the node's I/O has ended and before it answers who asked for the fence; the watch reads the node's area from the files of the
//! devices a moment after that, which is before the answer has reached Pacemaker or the hook of a node.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde_json::Value;

use super::records;

const LOOK: Duration = Duration::from_micros(500);
const DAY_SECONDS: f64 = 86_400.0;

/// Follows the head's event log in a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    places: Mutex<Vec<Place>>,
    sights: Mutex<Vec<Sight>>,
    stop: AtomicBool,
}

/// Where the data of a volume lies.
#[derive(Debug)]
pub struct Place {
    /// Name of the volume.
    pub volume: String,
    /// Runs of the volume: where in it, how long, the file and where in that.
    pub runs: Vec<(u64, u64, PathBuf, u64)>,
}

/// A node's area of a volume when it had lost its access there.
#[derive(Debug, Clone)]
pub struct Sight {
    /// Name of the volume.
    pub volume: String,
    /// The node, from 1.
    pub node: usize,
    /// What was there.
    pub area: Vec<u8>,
    /// How long after the event it had been read.
    pub delay: Duration,
}

impl Watch {
    /// Starts to follow the event log of the daemon that keeps its state in `state`.
    pub fn start(state: &Path) -> Self {
        let shared = Arc::new(Shared::default());
        let log = state.join("events.jsonl");
        let inner = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            if let Err(error) = inner.follow(&log) {
                println!("       the event log cannot be followed any more: {error:#}");
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Looks at this volume too from now on.
    pub fn add(&self, place: Place) {
        lock(&self.shared.places).push(place);
    }

    /// Forgets what was seen.
    pub fn forget(&self) {
        lock(&self.shared.sights).clear();
    }

    /// The last that was seen of a node (from 1) on a volume.
    pub fn sight(&self, volume: &str, node: usize) -> Option<Sight> {
        let sights = lock(&self.shared.sights);
        let found = sights
            .iter()
            .rfind(|sight| sight.volume == volume && sight.node == node);
        found.cloned()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn follow(&self, log: &Path) -> Result<()> {
        let mut file = File::open(log).with_context(|| log.display().to_string())?;
        let mut text = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            file.read_to_end(&mut text)?;
            let Some(end) = text.iter().rposition(|&byte| byte == b'\n') else {
                std::thread::sleep(LOOK);
                continue;
            };
            for line in text[..end].split(|&byte| byte == b'\n') {
                self.event(&serde_json::from_slice(line)?)?;
            }
            text.drain(..=end);
        }
        Ok(())
    }

    fn event(&self, event: &Value) -> Result<()> {
        let Some((volume, node)) = loss(event) else {
            return Ok(());
        };
        for place in lock(&self.places).iter() {
            if volume.is_some_and(|volume| volume != place.volume) {
                continue;
            }
            let area = place.read(records::area_range(node))?;
            let sight = Sight {
                volume: place.volume.clone(),
                node,
                area,
                delay: age(event["time"].as_str().unwrap_or_default())?,
            };
            lock(&self.sights).push(sight);
        }
        Ok(())
    }
}

impl Place {
    /// From what `volume map --json` says of a volume with one copy; `device` gives a device's file.
    ///
    /// # Errors
    /// When it says something else.
    pub fn new(volume: &str, map: &Value, device: impl Fn(&str) -> PathBuf) -> Result<Self> {
        let extents = map["extents"].as_array().context("a map has extents")?;
        let data = extents.iter().filter(|extent| extent["region"] == "public");
        let run = |extent: &Value| {
            Some((
                extent["offset_bytes"].as_u64()?,
                extent["length_bytes"].as_u64()?,
                device(extent["device"].as_str()?),
                extent["device_offset_bytes"].as_u64()?,
            ))
        };
        let runs: Option<Vec<_>> = data.map(run).collect();
        Ok(Self {
            volume: volume.to_owned(),
            runs: runs.context("an extent is a range of a device")?,
        })
    }

    fn read(&self, range: std::ops::Range<u64>) -> Result<Vec<u8>> {
        let length = usize::try_from(range.end - range.start)?;
        let mut bytes = vec![0; length];
        for (offset, length, file, device_offset) in &self.runs {
            let (start, end) = (range.start.max(*offset), range.end.min(offset + length));
            if start < end {
                let part = (start - range.start) as usize..(end - range.start) as usize;
                File::open(file)?
                    .read_exact_at(&mut bytes[part], device_offset + start - offset)?;
            }
        }
        Ok(bytes)
    }
}

/// The volume (none: all of them) and the number of the guest that has lost its access to it, if that is what an event is about. A
/// guest without a session has no access that `fenced` could tell of: then its key is removed, or it is the domain's member.
fn loss(event: &Value) -> Option<(Option<&str>, usize)> {
    let (volume, name) = match event["event"].as_str()? {
        "member-revoked" => (None, event["member"].as_str()?),
        "fenced" | "preempted" => (
            Some(event["volume"].as_str()?),
            event["party"]["initiator"].as_str()?,
        ),
        _ => return None,
    };
    let number = name.rsplit_once("guest")?.1.parse().ok()?;
    Some((volume, number))
}

/// How long ago a time of the event log was; less than a day.
fn age(time: &str) -> Result<Duration> {
    let clock = time.split_once('T').context("a time")?.1;
    let parts: Result<Vec<f64>, _> = clock
        .trim_end_matches('Z')
        .split(':')
        .map(str::parse)
        .collect();
    let [hours, minutes, seconds] = parts?[..] else {
        anyhow::bail!("{time} is no time");
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let then = (hours * 60.0 + minutes) * 60.0 + seconds;
    let age = (now.as_secs_f64() - then).rem_euclid(DAY_SECONDS);
    Ok(Duration::from_secs_f64(age))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Pushing and clearing leave a list whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_loss_names_volume_and_guest() {
        let party = json!({"initiator": "iqn.2026-11.dev.ringfence.test:guest3"});
        let event = |event: &str| json!({"event": event, "volume": "v", "party": party});
        assert_eq!(loss(&event("fenced")), Some((Some("v"), 3)));
        assert_eq!(loss(&event("preempted")), Some((Some("v"), 3)));
        assert_eq!(loss(&event("registered")), None);
        let member = |event: &str| json!({"event": event, "domain": "d", "member": "guest2"});
        assert_eq!(loss(&member("member-revoked")), Some((None, 2)));
        assert_eq!(loss(&member("member-fenced")), None);
        assert_eq!(loss(&json!({"event": "daemon-started"})), None);
    }

    #[test]
    fn a_range_is_read_from_where_it_lies() -> Result<()> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("a"), b"..01234")?;
        std::fs::write(folder.path().join("b"), b".56789")?;
        let map = json!({"extents": [
            {"region": "public", "offset_bytes": 0, "length_bytes": 5, "device": "a", "device_offset_bytes": 2},
            {"region": "private", "offset_bytes": 0, "length_bytes": 5, "device": "a", "device_offset_bytes": 0},
            {"region": "public", "offset_bytes": 5, "length_bytes": 5, "device": "b", "device_offset_bytes": 1},
        ]});
        let place = Place::new("v", &map, |name| folder.path().join(name))?;
        assert_eq!(place.read(3..8)?, b"34567");
        Ok(())
    }

    #[test]
    fn times_of_the_event_log_are_understood() -> Result<()> {
        assert!(age("2026-11-23T23:14:34.123456789Z")? < Duration::from_secs(86_400));
        assert!(age("now").is_err());
        Ok(())
    }
}
