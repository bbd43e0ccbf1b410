//! Other futures of a pool than a crash at home: it is carried to another machine, parts of it rot, its keys or disks are
//! lost, it gets a witness. Each runs beside the history, on a copy of the disks and of the model, with chance of its own: the
//! history goes on as if nothing had been.

mod carried;
mod lost_disks;
mod lost_keys;
mod rotten;
mod witness;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use volume::block_device::BlockDevice as _;
use volume::page_store::ReplicaHealth;
use volume::sim::{Random, SimDevice, SimWorld, Stop, Task, spawn};
use volume::{Pool, Volume};

use crate::clients::next_state;
use crate::content;
use crate::owners::number_of;
use crate::state::{Counters, Life, Model};
use crate::verify::{self, Opened, Opening};
use crate::violation::{trace, violation};
use crate::volume_model::{SECTOR, SPOT_SECTORS};

/// One look in so many is followed by a scenario.
const ONE_IN: u64 = 8;

/// A future of the pool.
pub(crate) struct Branch<'a> {
    life: &'a Life,
    world: SimWorld,
    model: Model,
    counters: &'a Counters,
    random: &'a mut Random,
    boot: u64,
    machine: &'static str,
}

/// Now and then looks at one of these futures.
pub fn perhaps(life: &Life, random: &mut Random, boot: u64) {
    let calm = {
        let model = life.model.borrow();
        // What two troubles together may do is another question.
        model.trouble.is_none() && model.leaving.is_empty() && !model.devices.is_empty()
    };
    if !random.one_in(ONE_IN) || !calm {
        return;
    }
    let mut branch = Branch {
        life,
        world: life.world.clone(),
        model: life.model.borrow().fork(),
        counters: &life.counters,
        boot,
        machine: "",
        random,
    };
    branch.stop();
    let (kind, scenario): (_, fn(&mut Branch<'_>)) = match branch.random.below(6) {
        0 => ("pool carried away", carried::scenario),
        1 => ("pool in part rotten", rotten::scenario),
        2 => ("keys lost", lost_keys::scenario),
        3 | 4 => ("disks lost", lost_disks::scenario),
        _ => ("witness", witness::scenario),
    };
    trace!("scenario: {kind}");
    scenario(&mut branch);
    life.done(kind);
}

impl Branch<'_> {
    /// The program stops, in one way or the other.
    fn stop(&mut self) {
        let stop = if self.random.one_in(3) {
            Stop::Kill
        } else {
            Stop::PowerCut
        };
        self.stop_by(stop);
    }

    fn stop_by(&mut self, stop: Stop) {
        trace!("  {stop:?}");
        self.world = self.world.after(stop, self.random.bits());
        let power_cut = stop == Stop::PowerCut;
        self.boot += u64::from(power_cut);
        self.model
            .stopped(&self.world, power_cut, self.counters.tick());
        self.life.summary.borrow_mut().crash_points += 1;
    }

    /// Opens the pool without some disks; `None` when there is none, or they are a majority.
    async fn open(&mut self, away: &BTreeSet<usize>) -> Option<Opened> {
        trace!("  opened as boot {} without {away:?}", self.boot);
        let opening = Opening {
            boot: self.boot,
            machine: self.machine,
            away: away.clone(),
        };
        let world = self.world.clone();
        verify::open_where(
            &world,
            &mut self.model,
            self.counters,
            self.random,
            &opening,
        )
        .await
    }

    async fn check(&mut self, opened: &Opened) {
        verify::check(&opened.pool, &mut self.model, self.counters).await;
        if let Some(problem) = &opened.owners.lock().violation {
            violation(problem);
        }
    }

    async fn sleep(&mut self, longest: Duration) {
        let micros = self.random.below(longest.as_micros() as u64);
        self.world
            .device(0)
            .sleep(Duration::from_micros(micros))
            .await;
    }

    /// The last stop: everything is there again, and everything is served.
    fn everything_is_back(&mut self) {
        self.model.without = None;
        self.stop();
        let world = self.world.clone();
        world.run(async {
            if let Some(opened) = self.open(&BTreeSet::new()).await {
                self.check(&opened).await;
            }
        });
        world.observe(|_| {});
    }

    /// One disk that is in the pool.
    fn a_disk(&mut self) -> Option<usize> {
        let disks: Vec<usize> = self.model.devices.values().copied().collect();
        self.random.pick(&disks).copied()
    }

    /// Volumes that can do without these disks.
    async fn tolerant(&self, opened: &Opened, away: &BTreeSet<usize>) -> BTreeSet<u32> {
        let devices = opened.pool.devices().await;
        let away: BTreeSet<Uuid> = {
            let owners = opened.owners.lock();
            let uuids = devices.iter().map(|info| info.uuid);
            uuids
                .filter(|uuid| {
                    owners
                        .disk_of(*uuid)
                        .is_some_and(|disk| away.contains(&disk))
                })
                .collect()
        };
        let mut tolerant = BTreeSet::new();
        for volume in opened.pool.volumes() {
            if does_without(&volume, &away).await {
                tolerant.extend(number_of(&volume.record().name));
            }
        }
        tolerant
    }

    /// Clients change a little of every volume that is to be served: keys, and data that nobody flushes.
    async fn stir(&mut self, opened: &Opened) {
        for volume in opened.pool.volumes() {
            let Some(number) = number_of(&volume.record().name) else {
                continue;
            };
            let served = self
                .model
                .without
                .as_ref()
                .is_none_or(|tolerant| tolerant.contains(&number));
            let Some(expected) = self.model.volumes.get_mut(&number) else {
                continue;
            };
            if !served || volume.fault().is_some() {
                continue;
            }
            if let Some((kind, after)) = next_state(self.random, &expected.keys.acknowledged) {
                expected.keys.in_flight = Some(after.clone());
                let committed = match volume.private_region() {
                    Ok(region) => region.commit(&after).await.map_err(|e| e.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                if let Err(error) = committed {
                    violation(&format!("{kind} of volume {number} failed: {error}"));
                }
                expected.keys.acknowledged = after;
                expected.keys.in_flight = None;
            }
            self.write(&volume, number).await;
        }
    }

    /// A client writes a little of a volume; nobody flushes it.
    async fn write(&mut self, volume: &Volume<SimDevice>, number: u32) {
        let Some(expected) = self.model.volumes.get_mut(&number) else {
            return;
        };
        let firsts: Vec<u64> = expected.spots.iter().map(|spot| spot.first).collect();
        let Some(first) = self.random.pick(&firsts).copied() else {
            return;
        };
        let sectors = first..first + SPOT_SECTORS;
        let id = self.counters.id();
        expected.begin(sectors.clone(), id, id, self.counters.tick());
        let data = content::data(number, first, SPOT_SECTORS, id);
        if let Err(error) = volume.write(first * SECTOR, data).await {
            violation(&format!("a write to volume {number} failed: {error}"));
        }
        expected.end(sectors, id, true, self.counters.tick());
    }
}

/// Whether no device is being emptied: one that is takes no keys. Nor does one that was, which is taken into use again.
async fn nothing_is_emptied(opened: &Opened) -> bool {
    let volumes = opened.pool.volumes();
    if volumes.iter().any(|volume| volume.record().job.is_some()) {
        return false;
    }
    for info in opened.pool.devices().await {
        if info.closed.is_some() && opened.pool.device_reopen(&info.name).await.is_err() {
            return false;
        }
    }
    true
}

/// The keeper beside a scenario, until it is dropped.
struct Keeping(Option<Task<()>>);

impl Keeping {
    fn new(pool: &Arc<Pool<SimDevice>>) -> Keeping {
        let pool = pool.clone();
        Keeping(Some(spawn(async move { pool.keep().await })))
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.cancel();
        }
    }
}

/// Whether everything in it is there without the devices: a whole plex, and a majority of current replicas of the keys.
async fn does_without(volume: &Volume<SimDevice>, away: &BTreeSet<Uuid>) -> bool {
    let record = volume.record();
    let is_away = |plex: &volume::config::Plex| away.iter().any(|device| plex.is_on(*device));
    let plex = record.plexes.iter().enumerate().any(|(position, plex)| {
        plex.is_attached() && !is_away(plex) && volume.stale_bytes(position) == 0
    });
    // A job may end with nothing but its fresh plexes.
    let job = record.job.as_ref().is_none_or(|job| {
        let mut plexes = record.plexes.iter();
        plexes.all(|plex| !job.fresh.contains(&plex.uuid) || !is_away(plex))
    });
    plex && job
        && volume.fault().is_none()
        && volume.unsettled_bytes() == 0
        && current_keys(volume, |device| !away.contains(&device)).await
}

/// Whether the replicas of the keys that are current and on a device that counts are a majority.
async fn current_keys(volume: &Volume<SimDevice>, counts: impl Fn(Uuid) -> bool) -> bool {
    let Ok(region) = volume.private_region() else {
        return false;
    };
    let Ok(health) = region.health_now().await else {
        return false;
    };
    let current = health
        .iter()
        .filter(|info| info.health == ReplicaHealth::Current && info.device.is_some_and(&counts));
    current.count() > health.len() / 2
}
