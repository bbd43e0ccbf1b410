//! What the volume layer costs: the same I/O on a volume and on a plain file, through the same reactor, in this process,
//! without sockets and SCSI.

use std::cell::Cell;
use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use bytes::{Bytes, BytesMut};
use reactor::{Caching, FileDevice, OpenOptions, spawn_local};
use volume::block_device::{BlockDevice, aligned_buffer};
use volume::{BlockSize, CreateVolume, DeviceSource, Persist, Pool, Volume};

use super::super::table::{Bar, Row};
use crate::random::Random;

/// Eight files of this size, all of them dirty, are less than what makes the kernel write back by itself.
const SIZE_BYTES: u64 = 256 << 20;
/// Room for label, configuration, keys and logs beside the volume.
const DEVICE_BYTES: u64 = SIZE_BYTES + (128 << 20);

/// How long a reactor looks for work before it sleeps: what the daemon's data reactors do.
const SPIN: Duration = Duration::from_micros(50);

/// A workload of the comparison.
#[derive(Debug, Clone, Copy)]
struct Pattern {
    name: &'static str,
    write: bool,
    length_bytes: u32,
    depth: u32,
}

/// With direct I/O the disk is what is measured: two workloads will do.
const DIRECT_PATTERNS: [Pattern; 2] = [
    Pattern {
        name: "direct, random 4 KiB writes, depth 8",
        write: true,
        length_bytes: 4096,
        depth: 8,
    },
    Pattern {
        name: "direct, random 64 KiB writes, depth 8",
        write: true,
        length_bytes: 65_536,
        depth: 8,
    },
];

const PATTERNS: [Pattern; 5] = [
    Pattern {
        name: "random 4 KiB reads, depth 1",
        write: false,
        length_bytes: 4096,
        depth: 1,
    },
    Pattern {
        name: "random 4 KiB writes, depth 1",
        write: true,
        length_bytes: 4096,
        depth: 1,
    },
    Pattern {
        name: "random 4 KiB reads, depth 32",
        write: false,
        length_bytes: 4096,
        depth: 32,
    },
    Pattern {
        name: "random 4 KiB writes, depth 32",
        write: true,
        length_bytes: 4096,
        depth: 32,
    },
    Pattern {
        name: "random 64 KiB writes, depth 8",
        write: true,
        length_bytes: 65_536,
        depth: 8,
    },
];

/// What is written to and read from.
enum Subject {
    Plain(FileDevice),
    /// Each write goes to both and ends with the slower one: at the same time when the reactor may wait for neither,
    /// else, in the page cache, one after the other on the reactor's own thread.
    Pair(FileDevice, FileDevice),
    Volume(Arc<Volume<FileDevice>>),
}

impl Subject {
    async fn read(&self, offset_bytes: u64, buf: BytesMut) -> Result<BytesMut> {
        match self {
            Self::Plain(file) | Self::Pair(file, _) => {
                let (result, buf) = file.read(offset_bytes, buf).await;
                result?;
                Ok(buf)
            }
            Self::Volume(volume) => {
                let (result, buf) = volume.read(offset_bytes, buf).await;
                result?;
                Ok(buf)
            }
        }
    }

    async fn write(&self, offset_bytes: u64, data: Bytes) -> Result<()> {
        match self {
            Self::Plain(file) => file.write(offset_bytes, data).await?,
            Self::Pair(first, second) => {
                let (one, other) = futures_lite::future::zip(
                    first.write(offset_bytes, data.clone()),
                    second.write(offset_bytes, data),
                )
                .await;
                one?;
                other?;
            }
            Self::Volume(volume) => volume.write(offset_bytes, data).await?,
        }
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        match self {
            Self::Plain(file) => file.flush().await?,
            Self::Pair(first, second) => {
                first.flush().await?;
                second.flush().await?;
            }
            Self::Volume(volume) => volume.flush().await?,
        }
        Ok(())
    }

    /// Writes everything once, so that nothing has holes. In the page cache by pages, as the bench of the targets does.
    async fn fill(&self, caching: Caching) -> Result<()> {
        let length_bytes = match caching {
            Caching::PageCache => 4096,
            Caching::Direct => 1 << 20,
        };
        let mut data = aligned_buffer(length_bytes);
        data.fill(0x5a);
        let data = data.freeze();
        let length_bytes = length_bytes as u64;
        for number in 0..SIZE_BYTES / length_bytes {
            self.write(number * length_bytes, data.clone()).await?;
        }
        self.flush().await
    }
}

/// The rows: a linear volume beside one file, and a mirror of two beside two files; of the workloads whose name contains
/// `only`.
///
/// # Errors
/// When a file or the pool cannot be used.
pub fn measure(folder: &Path, only: &str, rounds: u32, length: Duration) -> Result<Vec<Row>> {
    let (folder, only) = (folder.to_owned(), only.to_owned());
    let config = reactor::Config {
        reactors: 1,
        spin: SPIN,
        ..reactor::Config::default()
    };
    reactor::block_on(&config, async move {
        let mut rows = Vec::new();
        for (caching, patterns) in [
            (Caching::PageCache, &PATTERNS[..]),
            (Caching::Direct, &DIRECT_PATTERNS),
        ] {
            let wanted = || patterns.iter().filter(|p| p.name.contains(only.as_str()));
            if wanted().next().is_none() {
                continue;
            }
            let subjects = Subjects::open(&folder.join(format!("{caching:?}")), caching).await?;
            for pattern in wanted() {
                eprintln!("volume layer: {}", pattern.name);
                rows.extend(subjects.compare(*pattern, rounds, length).await?);
            }
        }
        anyhow::Ok(rows)
    })?
}

struct Subjects {
    plain: Rc<Subject>,
    /// With the promise of a mirror: a file that hangs stops nobody.
    pair: Rc<Subject>,
    /// Without it; none with direct I/O, where both are the same.
    inline_pair: Option<Rc<Subject>>,
    linear: Rc<Subject>,
    mirror: Rc<Subject>,
    /// Keeps the devices open.
    _pool: Arc<Pool<FileDevice>>,
}

impl Subjects {
    async fn open(folder: &Path, caching: Caching) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let pool = Pool::open(Vec::new(), uuid::Uuid::new_v4()).await?;
        for name in ["d1", "d2", "d3"] {
            let path = folder.join(name);
            let source = DeviceSource {
                path: path.display().to_string(),
                device: Arc::new(file(&path, DEVICE_BYTES, caching)?),
            };
            pool.device_add(name, source).await?;
        }
        let linear = create(&pool, "linear", &["d1"], 1).await?;
        let mirror = create(&pool, "mirror", &["d2", "d3"], 2).await?;
        let pool = Arc::new(pool);
        let plain = |name: &str| file(&folder.join(name), SIZE_BYTES, caching);
        let (one, two) = (plain("one")?, plain("two")?);
        one.never_block();
        two.never_block();
        let inline_pair = match caching {
            Caching::PageCache => Some(Subject::Pair(plain("three")?, plain("four")?)),
            Caching::Direct => None,
        };
        let subjects = Self {
            plain: Rc::new(Subject::Plain(plain("plain")?)),
            pair: Rc::new(Subject::Pair(one, two)),
            inline_pair: inline_pair.map(Rc::new),
            linear: Rc::new(Subject::Volume(linear)),
            mirror: Rc::new(Subject::Volume(mirror)),
            _pool: pool,
        };
        for subject in [
            &subjects.plain,
            &subjects.pair,
            &subjects.linear,
            &subjects.mirror,
        ]
        .into_iter()
        .chain(&subjects.inline_pair)
        {
            subject.fill(caching).await?;
        }
        Ok(subjects)
    }

    async fn compare(&self, pattern: Pattern, rounds: u32, length: Duration) -> Result<Vec<Row>> {
        let row = |measure: String, bar| Row {
            measure,
            ours: Vec::new(),
            theirs: Vec::new(),
            limit: Vec::new(),
            bar,
        };
        let mut linear = row(
            format!("linear, {}: per second", pattern.name),
            Bar::RatioAtLeast(0.95),
        );
        // Reads of a mirror go to one of the two: they are compared with one file.
        let mut mirror = row(
            format!("mirror of two, {}: per second", pattern.name),
            if pattern.write {
                Bar::RatioAtLeast(0.85)
            } else {
                Bar::None
            },
        );
        for round in 0..rounds {
            for (row, ours, theirs) in [
                (&mut linear, &self.linear, &self.plain),
                (&mut mirror, &self.mirror, &self.pair),
            ] {
                // Nobody always follows the same one.
                if round % 2 == 0 {
                    row.ours.push(run(ours, pattern, length).await?);
                    row.theirs.push(run(theirs, pattern, length).await?);
                } else {
                    row.theirs.push(run(theirs, pattern, length).await?);
                    row.ours.push(run(ours, pattern, length).await?);
                }
            }
            if let (true, Some(pair)) = (pattern.write, &self.inline_pair) {
                mirror.limit.push(run(pair, pattern, length).await?);
            }
        }
        Ok(vec![linear, mirror])
    }
}

fn file(path: &Path, size_bytes: u64, caching: Caching) -> Result<FileDevice> {
    std::fs::File::create_new(path)?.set_len(size_bytes)?;
    FileDevice::open(path, OpenOptions { caching }).with_context(|| path.display().to_string())
}

async fn create(
    pool: &Pool<FileDevice>,
    name: &str,
    on: &[&str],
    mirrors: usize,
) -> Result<Arc<Volume<FileDevice>>> {
    let request = CreateVolume {
        name: name.into(),
        size_bytes: SIZE_BYTES,
        on: on.iter().map(ToString::to_string).collect(),
        keys_on: Vec::new(),
        block_size: BlockSize::B512,
        persist: Persist::Aptpl,
        layout: volume::LayoutRequest::Linear,
        mirrors,
    };
    Ok(pool.volume_create(request).await?)
}

/// Operations a second. Afterwards everything is on the disk: nobody's pages are written back during somebody else's run.
async fn run(subject: &Rc<Subject>, pattern: Pattern, length: Duration) -> Result<f64> {
    let done = Rc::new(Cell::new(0_u64));
    let start = Instant::now();
    let end = start + length;
    let lanes: Vec<_> = (0..pattern.depth)
        .map(|lane| {
            spawn_local(lane_of(
                Rc::clone(subject),
                pattern,
                u64::from(lane),
                Rc::clone(&done),
                end,
            ))
        })
        .collect();
    for lane in lanes {
        join(lane).await??;
    }
    let rate = done.get() as f64 / start.elapsed().as_secs_f64();
    if pattern.write {
        subject.flush().await?;
    }
    Ok(rate)
}

async fn join<T>(handle: impl Future<Output = Result<T, reactor::JoinError>>) -> Result<T> {
    handle
        .await
        .map_err(|error| anyhow!("a lane of the load: {error}"))
}

async fn lane_of(
    subject: Rc<Subject>,
    pattern: Pattern,
    lane: u64,
    done: Rc<Cell<u64>>,
    end: Instant,
) -> Result<()> {
    let mut random = Random::new(lane + 1);
    let mut buffer = aligned_buffer(pattern.length_bytes as usize);
    buffer.fill(0xa5);
    let data = buffer.clone().freeze();
    let slots = usize::try_from(SIZE_BYTES / u64::from(pattern.length_bytes))?;
    while Instant::now() < end {
        let offset_bytes = random.below(slots) as u64 * u64::from(pattern.length_bytes);
        if pattern.write {
            subject.write(offset_bytes, data.clone()).await?;
        } else {
            buffer = subject.read(offset_bytes, buffer).await?;
        }
        done.set(done.get() + 1);
    }
    Ok(())
}
