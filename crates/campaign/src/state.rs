//! What the parts of a history share: the pool under test, the model, and what is under way.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;
use volume::sim::{Random, SimDevice, SimWorld};
use volume::{Pool, Volume};

use crate::owners::Owners;
use crate::plan::Plan;
use crate::register::Moment;
use crate::summary::Summary;
use crate::violation::trace;
use crate::volume_model::{VolumeModel, Volumes};

/// An operation on the pool whose outcome is not known yet.
pub enum Pending {
    /// A volume may be there.
    Create(Box<VolumeModel>),
    /// A volume may be gone.
    Delete(u32),
    /// A volume may be larger.
    Grow(u32, u64),
    /// A volume may have another name.
    Rename(u32, String),
    /// A device may be there: name and disk.
    DeviceAdd(String, usize),
    /// A device may be gone.
    DeviceRemove(String),
}

/// How a disk is ill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ill {
    /// Everything fails.
    Dead,
    /// Everything hangs.
    Hanging,
    /// Something goes wrong now and then.
    Faulty,
    /// An operator said that it broke.
    Failed,
}

/// A disk that is in trouble; one at a time.
#[derive(Clone)]
pub struct Trouble {
    /// The disk.
    pub disk: usize,
    /// Volumes that can do without it: nothing of it may reach their clients.
    pub tolerant: BTreeSet<u32>,
    /// How it is ill.
    pub ill: Ill,
    /// What it had not made durable is lost: it lost power, or said that a flush failed.
    pub loses: bool,
    /// It lost power, and whoever had it open has not opened it anew.
    pub cut_off: bool,
    /// It is well again, since then, but what it did is not repaired yet.
    pub lifted: Option<Duration>,
}

impl Trouble {
    /// The disk is well again.
    fn heal(&mut self, world: &SimWorld) {
        self.lifted = Some(world.time());
        world.resume(self.disk);
        match (self.loses, self.ill) {
            (true, Ill::Dead) => {
                world.power_cycle(self.disk);
                self.cut_off = true;
            }
            (true, _) => world.forget(self.disk),
            (false, _) => world.revive(self.disk),
        }
        world.slow(self.disk, 1);
    }
}

/// What is true, as far as it can be known.
#[derive(Default)]
pub struct Model {
    /// Volumes by number.
    pub volumes: Volumes,
    /// Volumes that are being deleted: errors of their clients mean nothing.
    pub closing: BTreeSet<u32>,
    /// Disks of the pool by name of the device.
    pub devices: BTreeMap<String, usize>,
    /// Devices that another one replaces: they go when that is done.
    pub leaving: BTreeSet<String>,
    /// What may have happened.
    pub pending: BTreeMap<u64, Pending>,
    /// The disk in trouble.
    pub trouble: Option<Trouble>,
    /// Disks are away, and these volumes can do without them.
    pub without: Option<BTreeSet<u32>>,
}

impl Model {
    /// A copy for looking at another future of the same past.
    pub fn fork(&self) -> Model {
        Model {
            volumes: self
                .volumes
                .iter()
                .map(|(number, volume)| (*number, volume.fork()))
                .collect(),
            closing: self.closing.clone(),
            devices: self.devices.clone(),
            leaving: self.leaving.clone(),
            pending: self
                .pending
                .iter()
                .map(|(id, pending)| (*id, pending.fork()))
                .collect(),
            trouble: self.trouble.clone(),
            without: self.without.clone(),
        }
    }

    /// The disk in trouble is well again; what it lost is lost to the volumes that cannot do without it.
    pub fn heal(&mut self, world: &SimWorld, now: Moment) {
        let Some(trouble) = &mut self.trouble else {
            return;
        };
        trouble.heal(world);
        if trouble.loses {
            let needing = self.volumes.iter_mut();
            needing
                .filter(|(number, _)| !trouble.tolerant.contains(number))
                .for_each(|(_, volume)| volume.lost(now));
        }
    }

    /// The program stopped; `world` is what is left.
    pub fn stopped(&mut self, world: &SimWorld, power_cut: bool, now: Moment) {
        // A disk that hung does so no more. One that lost something just now, and a program that stops before it could say
        // which copy is the good one, are as a power cut.
        let mut loses = power_cut;
        if let Some(trouble) = self.trouble.as_ref().filter(|t| t.lifted.is_none()) {
            loses |= trouble.loses;
            if matches!(trouble.ill, Ill::Hanging | Ill::Faulty) {
                self.heal(world, now);
            }
        }
        if let Some(trouble) = &mut self.trouble {
            trouble.cut_off = false;
        }
        let created = self
            .pending
            .values_mut()
            .filter_map(|pending| match pending {
                Pending::Create(volume) => Some(&mut **volume),
                _ => None,
            });
        for volume in self.volumes.values_mut().chain(created) {
            volume.stopped(power_cut, loses, now);
        }
    }
}

impl Pending {
    fn fork(&self) -> Pending {
        match self {
            Pending::Create(volume) => Pending::Create(Box::new(volume.fork())),
            Pending::Delete(number) => Pending::Delete(*number),
            Pending::Grow(number, size) => Pending::Grow(*number, *size),
            Pending::Rename(number, name) => Pending::Rename(*number, name.clone()),
            Pending::DeviceAdd(name, disk) => Pending::DeviceAdd(name.clone(), *disk),
            Pending::DeviceRemove(name) => Pending::DeviceRemove(name.clone()),
        }
    }
}

/// Counts that go on through all lives of a history.
#[derive(Default)]
pub struct Counters {
    /// Moments of the model.
    pub clock: Cell<Moment>,
    /// Numbers of writes, reads and operations.
    pub ids: Cell<u64>,
    /// Numbers of volumes.
    pub volumes: Cell<u32>,
}

impl Counters {
    /// A moment later than all before it.
    pub fn tick(&self) -> Moment {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    /// A number that was not used before, not 0.
    pub fn id(&self) -> u64 {
        self.ids.set(self.ids.get() + 1);
        self.ids.get()
    }
}

/// One life of the program under test: from an open to a crash.
pub struct Life {
    /// The disks.
    pub world: SimWorld,
    /// The pool under test.
    pub pool: Arc<Pool<SimDevice>>,
    /// Who owns what on the disks.
    pub owners: Arc<Mutex<Owners>>,
    /// What it is checked against.
    pub model: RefCell<Model>,
    /// Chance of the workload.
    pub random: RefCell<Random>,
    /// How this history is made.
    pub plan: Plan,
    /// Numbers and moments.
    pub counters: Rc<Counters>,
    /// What was done.
    pub summary: Rc<RefCell<Summary>>,
    /// What is under way: kind, volume (0 for none), since when.
    pub active: RefCell<BTreeMap<u64, (&'static str, u32, Duration)>>,
    /// Clients and operators begin nothing new; nobody takes it back.
    pub quiet: Cell<bool>,
    /// Clients and operators begin nothing new for a while.
    pub rest: Cell<bool>,
    /// Volumes that met an error that they may: until they are opened again they may go on failing.
    pub poisoned: RefCell<BTreeSet<u32>>,
}

/// Notes that something is under way, as long as it lives.
pub struct Active<'a> {
    life: &'a Life,
    number: u64,
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        let active = self.life.active.borrow_mut().remove(&self.number);
        trace!(
            "{:?} #{} ends: {active:?}",
            self.life.world.time(),
            self.number
        );
    }
}

impl Life {
    /// Notes that something of a kind is under way.
    pub fn begin(&self, kind: &'static str, volume: u32) -> Active<'_> {
        let number = self.counters.id();
        let since = self.world.time();
        trace!("{since:?} #{number} begins: {kind} of volume {volume}");
        self.active
            .borrow_mut()
            .insert(number, (kind, volume, since));
        Active { life: self, number }
    }

    /// Counts an operation that ended well.
    pub fn done(&self, kind: &'static str) {
        *self.summary.borrow_mut().done.entry(kind).or_default() += 1;
    }

    /// Counts one that did not, and could not.
    pub fn refused(&self, kind: &'static str) {
        *self.summary.borrow_mut().refused.entry(kind).or_default() += 1;
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        self.random.borrow_mut().below(bound)
    }

    /// True once in `of` times.
    pub fn one_in(&self, of: u64) -> bool {
        self.random.borrow_mut().one_in(of)
    }

    /// Waits on the clock of the world.
    pub async fn sleep(&self, duration: Duration) {
        use volume::block_device::BlockDevice as _;
        let device = self.world.device(0);
        device.sleep(duration).await;
    }

    /// Waits before something new is begun, as long as there is a rest.
    pub async fn pause(&self, micros: u64) {
        self.sleep(Duration::from_micros(micros)).await;
        while self.rest.get() && !self.quiet.get() {
            self.sleep(Duration::from_millis(100)).await;
        }
    }

    /// The volume under test with this number.
    pub fn volume(&self, number: u32) -> Option<Arc<Volume<SimDevice>>> {
        let uuid = self
            .model
            .borrow()
            .volumes
            .get(&number)?
            .identity
            .as_ref()?
            .uuid;
        self.pool
            .volumes()
            .into_iter()
            .find(|volume| volume.uuid() == uuid)
    }

    /// Its name.
    pub fn name_of(&self, number: u32) -> Option<String> {
        Some(self.model.borrow().volumes.get(&number)?.name.clone())
    }

    /// A volume that no operator works on, unless this history lets them get into each other's way.
    pub fn pick_idle_volume(&self) -> Option<u32> {
        let number = self.pick_volume()?;
        let model = self.model.borrow();
        let busy = model.pending.values().any(|pending| match pending {
            Pending::Create(volume) => volume.number == number,
            Pending::Delete(busy) | Pending::Grow(busy, _) | Pending::Rename(busy, _) => {
                *busy == number
            }
            Pending::DeviceAdd(..) | Pending::DeviceRemove(_) => false,
        });
        (!busy || self.plan.clashes).then_some(number)
    }

    /// A volume that clients may use now.
    pub fn pick_volume(&self) -> Option<u32> {
        let model = self.model.borrow();
        let open: Vec<u32> = model
            .volumes
            .keys()
            .filter(|number| !model.closing.contains(number))
            .copied()
            .collect();
        self.random.borrow_mut().pick(&open).copied()
    }

    /// How many times slower than at full speed clients and operators work: while a disk is in trouble, everybody waits
    /// for seconds.
    pub fn pace(&self) -> u64 {
        let trouble = self.model.borrow().trouble.is_some();
        self.plan.pace * if trouble { 20 } else { 1 }
    }

    /// Notes that a volume met an error.
    pub fn poison(&self, volume: u32) {
        self.poisoned.borrow_mut().insert(volume);
    }

    /// Tells the model of a volume something, at a new moment; nothing happens when the volume is gone.
    pub fn on_volume(&self, number: u32, tell: impl FnOnce(&mut VolumeModel, Moment)) {
        let now = self.counters.tick();
        if let Some(volume) = self.model.borrow_mut().volumes.get_mut(&number) {
            tell(volume, now);
        }
    }

    /// Whether an error, or a wait without end, may reach a client of this volume now.
    pub fn may_fail(&self, volume: u32) -> bool {
        let model = self.model.borrow();
        model.closing.contains(&volume)
            || !model.volumes.contains_key(&volume)
            || self.poisoned.borrow().contains(&volume)
            || model
                .trouble
                .as_ref()
                .is_some_and(|trouble| !trouble.tolerant.contains(&volume))
    }
}

/// Identity of the kernel's boot with this number.
pub fn boot_id(boot: u64) -> Uuid {
    Uuid::from_u128(0xb007_0000 + u128::from(boot))
}
