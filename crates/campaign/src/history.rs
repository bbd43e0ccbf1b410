//! One history: lives, looks and crashes.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;
use volume::block_device::{BlockDevice as _, aligned_buffer};
use volume::sim::{Effect, Fault, Operations, Random, SimWorld, Stop, spawn};
use volume::{DeviceSource, Pool};

use crate::clients::{data_client, keys_client};
use crate::content;
use crate::health::{compare_plexes, unhealthy};
use crate::jobs::{cancel_all, resume_all};
use crate::nemesis::{end_if_healthy, lift, nemesis};
use crate::operator::operator;
use crate::plan::{Plan, Plant};
use crate::scenario;
use crate::state::{Counters, Life, Model, boot_id};
use crate::summary::Summary;
use crate::verify::{self, Opened, path_of};
use crate::violation::{trace, violation};
use crate::volume_model::{SECTOR, SPOT_SECTORS};

/// A history that went wrong.
#[derive(Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What is wrong.
    pub problem: String,
}

/// Runs the history that belongs to `seed`.
///
/// # Errors
/// [`Failure`] when something that was promised does not hold.
pub fn run(seed: u64, plant: Option<Plant>) -> Result<Summary, Failure> {
    let summary = Rc::new(RefCell::new(Summary::default()));
    let theirs = summary.clone();
    catch_unwind(AssertUnwindSafe(move || {
        History::new(seed, plant, theirs).run()
    }))
    .map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Failure {
            seed,
            problem: text.unwrap_or_default(),
        }
    })?;
    Ok(summary.take())
}

/// What an earlier life left on a disk: nothing at its ends, or it would be refused.
fn leave_behind(world: &SimWorld, disk: usize, size_bytes: u64) {
    const MIB: u64 = 1 << 20;
    // Where data and keys come to lie. Every spot of a client has a block of it.
    let (data, keys) = (MIB..32 * MIB, size_bytes - 10 * MIB..size_bytes - 2 * MIB);
    let step = SPOT_SECTORS * SECTOR;
    let places = data.chain(keys).step_by(step as usize);
    for at in places.flat_map(|place| (place..place + 4096).step_by(SECTOR as usize)) {
        let old = content::data(content::EARLIER, at / SECTOR, 1, at);
        world.overwrite(disk, at, &old);
    }
}

struct History {
    plan: Plan,
    random: Random,
    /// Chance of what is looked at beside the history.
    scenarios: Random,
    world: SimWorld,
    model: Model,
    counters: Rc<Counters>,
    summary: Rc<RefCell<Summary>>,
    boot: u64,
}

impl History {
    fn new(seed: u64, plant: Option<Plant>, summary: Rc<RefCell<Summary>>) -> History {
        let plan = Plan::new(seed, plant);
        let mut random = Random::new(seed);
        let world = SimWorld::seeded(random.bits());
        for size in &plan.disks {
            let disk = world.add(*size, plan.alignment_bytes).disk();
            world.stragglers(disk, plan.stragglers);
            if plan.used {
                leave_behind(&world, disk, *size);
            }
        }
        History {
            plan,
            random,
            scenarios: Random::new(seed ^ 0x7363_656e_6500),
            world,
            model: Model::default(),
            counters: Rc::default(),
            summary,
            boot: 1,
        }
    }

    fn run(mut self) {
        self.summary.borrow_mut().episodes += 1;
        self.begin();
        for life in 0..self.plan.lives {
            let last = life + 1 == self.plan.lives;
            self.live(last);
            if last {
                break;
            }
            let stop = if self.random.one_in(3) {
                Stop::Kill
            } else {
                Stop::PowerCut
            };
            self.crash(stop);
        }
        self.summary.borrow_mut().virtual_seconds += self.world.time().as_secs();
    }

    /// Some devices make the pool.
    fn begin(&mut self) {
        let (world, boot) = (self.world.clone(), self.boot);
        let devices = 1 + self.random.below(world.disks() as u64) as usize;
        self.world.run(async {
            let Ok(pool) = Pool::open(Vec::new(), boot_id(boot)).await else {
                violation("an empty pool does not open");
            };
            for disk in 0..devices {
                let source = DeviceSource {
                    path: path_of(disk),
                    device: world.device(disk),
                };
                if let Err(error) = pool.device_add(&format!("d{disk}"), source).await {
                    violation(&format!("device d{disk} is refused: {error}"));
                }
            }
        });
        for disk in 0..devices {
            self.model.devices.insert(format!("d{disk}"), disk);
        }
    }

    fn plant(&self) {
        for disk in 0..self.world.disks() {
            match self.plan.plant {
                Some(Plant::LyingFlush) => {
                    self.world
                        .inject(disk, Fault::new(Effect::Lose).on(Operations::FLUSHES));
                }
                Some(Plant::LostWrite) => {
                    let fault = Fault::new(Effect::Lose)
                        .on(Operations::CHANGES)
                        .range(8 << 20..30 << 20);
                    self.world.inject(disk, fault.after(40).once());
                }
                Some(Plant::MisdirectedWrite) => {
                    let fault =
                        Fault::new(Effect::Misdirect(8 << 20..30 << 20)).on(Operations::CHANGES);
                    self.world
                        .inject(disk, fault.range(8 << 20..30 << 20).after(40).once());
                }
                _ => {}
            }
        }
    }

    fn live(&mut self, last: bool) {
        let world = self.world.clone();
        self.plant();
        let mut random = self.random.fork();
        let mut scenarios = self.scenarios.fork();
        let model = std::mem::take(&mut self.model);
        let (plan, counters, summary, boot) = (
            self.plan.clone(),
            self.counters.clone(),
            self.summary.clone(),
            self.boot,
        );
        let life = world.run(async {
            let mut model = model;
            let mut opened = verify::open(&world, &mut model, &counters, &mut random, boot).await;
            if opened.is_none() && model.trouble.is_some() {
                model.heal(&world, counters.tick());
                opened = verify::open(&world, &mut model, &counters, &mut random, boot).await;
            }
            let Some(opened) = opened else {
                violation("the pool is gone");
            };
            let keeper = opened.pool.clone();
            drop(spawn(async move { keeper.keep().await }));
            verify::check(&opened.pool, &mut model, &counters).await;
            verify::check(&opened.pool, &mut model, &counters).await;
            let Opened { pool, owners } = opened;
            let life = Rc::new(Life {
                world: world.clone(),
                pool,
                owners,
                model: RefCell::new(model),
                random: RefCell::new(random.fork()),
                plan: plan.clone(),
                counters: counters.clone(),
                summary,
                active: RefCell::default(),
                quiet: Cell::new(false),
                rest: Cell::new(false),
                poisoned: RefCell::default(),
            });
            for _ in 0..plan.clients {
                drop(spawn(data_client(life.clone())));
            }
            drop(spawn(keys_client(life.clone())));
            for _ in 0..plan.operators {
                drop(spawn(operator(life.clone())));
            }
            if plan.troubles {
                drop(spawn(nemesis(life.clone())));
            }
            for _ in 0..plan.looks {
                let longest = if random.one_in(8) { 20_000 } else { 2_000 };
                let pause = random.below(longest) * life.pace();
                life.sleep(Duration::from_micros(pause)).await;
                if random.one_in(12) {
                    rest(&life, &mut random, boot).await;
                }
                look(&life, &mut random, boot);
                if plan.scenarios {
                    scenario::perhaps(&life, &mut scenarios, boot);
                }
                end_if_healthy(&life).await;
            }
            if last {
                settle(&life).await;
            }
            life
        });
        judge(&life);
        self.model = life.model.take();
        world.observe(|_| {});
    }

    fn crash(&mut self, stop: Stop) {
        trace!("crash: {stop:?}");
        self.summary.borrow_mut().crash_points += 1;
        self.world = self.world.after(stop, self.random.bits());
        if stop == Stop::PowerCut {
            self.boot += 1;
        }
        self.model
            .stopped(&self.world, stop == Stop::PowerCut, self.counters.tick());
    }
}

/// What was found wrong beside the way.
fn judge(life: &Life) {
    life.owners.lock().refresh(&life.pool);
    if let Some(problem) = &life.owners.lock().violation {
        violation(problem);
    }
    let now = life.world.time();
    for (kind, volume, since) in life.active.borrow().values() {
        if now - *since > Duration::from_secs(600) && !(*volume != 0 && life.may_fail(*volume)) {
            violation(&format!(
                "{kind} of volume {volume} takes {:?} already",
                now - *since
            ));
        }
    }
}

/// Nobody begins anything for a few seconds, so that the keeper does what it leaves for idle times. Looks at moments at which
/// it has just written something.
async fn rest(life: &Life, random: &mut Random, boot: u64) {
    life.rest.set(true);
    life.sleep(Duration::from_millis(500 + random.below(1_500)))
        .await;
    for _ in 0..random.within(1..4) {
        let written = life.world.landings(random.within(1..4));
        or(written, life.sleep(Duration::from_secs(3))).await;
        look(life, random, boot);
    }
    life.rest.set(false);
}

/// What would a crash now leave? Opens it, checks it, crashes once more, and checks again.
fn look(life: &Life, random: &mut Random, boot: u64) {
    judge(life);
    {
        let mut summary = life.summary.borrow_mut();
        for (kind, ..) in life.active.borrow().values() {
            *summary.interrupted.entry(kind).or_default() += 1;
        }
    }
    let mut model = life.model.borrow().fork();
    let mut world = life.world.clone();
    let mut boot = boot;
    // The second crash hits what the first one left, sometimes while that is being opened.
    for crash in 0..2 {
        let stop = if random.one_in(3) {
            Stop::Kill
        } else {
            Stop::PowerCut
        };
        if stop == Stop::PowerCut {
            boot += 1;
        }
        world = world.after(stop, random.bits());
        trace!("look: {stop:?} ({crash})");
        model.stopped(&world, stop == Stop::PowerCut, life.counters.tick());
        life.summary.borrow_mut().crash_points += 1;
        world.run(async {
            let opened = verify::open(&world, &mut model, &life.counters, random, boot).await;
            if let Some(opened) = opened {
                // Clients of a plex in trouble wait for the keeper; without trouble nobody does.
                let waiting = model.trouble.is_some().then(|| {
                    let keeper = opened.pool.clone();
                    spawn(async move { keeper.keep().await })
                });
                verify::check(&opened.pool, &mut model, &life.counters).await;
                if waiting.is_none() && random.one_in(2) {
                    // The keeper begins to repair, and nothing of it shows.
                    let keeper = opened.pool.clone();
                    let keeper = spawn(async move { keeper.keep().await });
                    let most = [3_000, 300_000, 10_000_000][random.below(3) as usize];
                    world
                        .device(0)
                        .sleep(Duration::from_micros(random.below(most)))
                        .await;
                    verify::check(&opened.pool, &mut model, &life.counters).await;
                    keeper.cancel();
                }
                drop(waiting);
                if let Some(problem) = &opened.owners.lock().violation {
                    violation(problem);
                }
            }
        });
        world.observe(|_| {});
        if crash == 0 && random.one_in(2) {
            break;
        }
    }
}

/// Lets everything that is under way end, heals everything, and compares all plexes.
async fn settle(life: &Life) {
    life.quiet.set(true);
    lift(life).await;
    let begun = life.world.time();
    let mut problem = None;
    for round in 0..200 {
        life.sleep(Duration::from_secs(1 + round / 4)).await;
        judge(life);
        lift(life).await;
        if round % 20 == 0 {
            resume_all(life).await;
        }
        if round == 150 {
            cancel_all(life).await;
        }
        problem = match unhealthy(&life.pool).await {
            None if life.active.borrow().is_empty() => {
                end_if_healthy(life).await;
                compare(life).await;
                return;
            }
            None => Some(format!("{:?}", life.active.borrow())),
            problem => problem,
        };
    }
    // What an error left behind in a volume that could not do without the disk may need a restart.
    let poisoned = !life.poisoned.borrow().is_empty();
    if !poisoned && let Some(problem) = problem {
        violation(&format!(
            "it does not become whole in {:?}: {problem}",
            life.world.time() - begun
        ));
    }
}

/// When everything is whole and nothing is in flight, all plexes of a volume are the same.
async fn compare(life: &Life) {
    if life.model.borrow().trouble.is_some() {
        return;
    }
    for volume in life.pool.volumes() {
        // Reading settles what a crash left unsettled.
        let mut at = 0;
        while at < volume.size_bytes() {
            let length = (volume.size_bytes() - at).min(64 << 10);
            let (result, _) = volume.read(at, aligned_buffer(length as usize)).await;
            if let Err(error) = result {
                violation(&format!(
                    "volume {} cannot be read: {error}",
                    volume.record().name
                ));
            }
            at += length;
        }
        if let Err(problem) = compare_plexes(&life.world, &volume, &life.owners.lock()) {
            violation(&problem);
        }
        life.summary.borrow_mut().comparisons += u64::from(volume.record().plexes.len() > 1);
    }
}
