//! What is known of one volume: its identity, its data, its keys.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_lock::RwLock;
use reservation::machine::apply;
use reservation::{Event, LuReservations, State};
use uuid::Uuid;
use volume::config::{BlockSize, Persist};
use volume::sim::Random;
use volume::{CreateVolume, VolumeRecord};

use crate::content::{self, Sector};
use crate::register::{Allowed, Moment, Register};

/// Bytes of a sector of the model: the unit in which disks tear.
pub const SECTOR: u64 = 512;
/// Sectors of a spot.
pub const SPOT_SECTORS: u64 = 32;

/// What an initiator sees of a volume's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// UUID.
    pub uuid: Uuid,
    /// Logical unit number.
    pub lun: u16,
    /// NAA designator.
    pub naa: String,
    /// Unit serial number.
    pub serial: String,
}

impl Identity {
    /// That of a record.
    pub fn of(record: &VolumeRecord) -> Identity {
        Identity {
            uuid: record.uuid,
            lun: record.lun,
            naa: record.naa.clone(),
            serial: record.serial.clone(),
        }
    }
}

/// A short run of sectors that clients write; everything between spots stays zero.
pub struct Spot {
    /// First sector.
    pub first: u64,
    /// One register a sector.
    pub registers: Vec<Register>,
    /// Atomic writes take it alone, as the target's range lock does.
    pub lock: Arc<RwLock<()>>,
}

impl Spot {
    fn new(first: u64) -> Spot {
        Spot {
            first,
            registers: vec![Register::default(); SPOT_SECTORS as usize],
            lock: Arc::default(),
        }
    }

    fn end(&self) -> u64 {
        self.first + SPOT_SECTORS
    }
}

/// What is known of the registrations.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// What was acknowledged last.
    pub acknowledged: State,
    /// What a commit under way, or one without an answer, may have made of it.
    pub in_flight: Option<State>,
}

impl Keys {
    /// The states that may be found.
    pub fn allowed(&self) -> Vec<&State> {
        std::iter::once(&self.acknowledged)
            .chain(&self.in_flight)
            .collect()
    }

    /// It is not known whether what comes next counts as a reboot; nothing is under way.
    pub fn perhaps_rebooted(&mut self, persist_always: bool) {
        let mut rebooted = Keys {
            acknowledged: self.acknowledged.clone(),
            in_flight: None,
        };
        rebooted.power_on(persist_always);
        self.in_flight = Some(rebooted.acknowledged);
    }

    /// What is left after the machine lost power (SPC-4 5.13.11.2.1).
    fn power_on(&mut self, persist_always: bool) {
        for state in std::iter::once(&mut self.acknowledged).chain(&mut self.in_flight) {
            let before = LuReservations::from(std::mem::take(state));
            *state = apply(&before, &Event::PowerOn { persist_always })
                .state
                .persistent;
        }
    }
}

/// An atomic write whose outcome is all or nothing.
#[derive(Clone, Debug)]
pub struct Atomic {
    /// Number of the write.
    pub write: u64,
    /// Its sectors.
    pub sectors: Range<u64>,
}

/// What is known of a volume.
pub struct VolumeModel {
    /// Its number, in the content of every sector.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// `None` until it was seen.
    pub identity: Option<Identity>,
    /// How it was asked for.
    pub request: CreateVolume,
    /// Size in bytes.
    pub size_bytes: u64,
    /// The spots, ascending.
    pub spots: Vec<Spot>,
    /// The registrations.
    pub keys: Keys,
    /// Atomic writes under way.
    pub atomics: Vec<Atomic>,
}

impl VolumeModel {
    /// A volume as it was asked for.
    pub fn new(number: u32, request: CreateVolume, random: &mut Random) -> VolumeModel {
        let mut model = VolumeModel {
            number,
            name: request.name.clone(),
            identity: None,
            size_bytes: 0,
            request: request.clone(),
            spots: Vec::new(),
            keys: Keys::default(),
            atomics: Vec::new(),
        };
        model.grow(request.size_bytes, random);
        model
    }

    /// Sectors of a logical block.
    pub fn block_sectors(&self) -> u64 {
        match self.request.block_size {
            BlockSize::B512 => 1,
            BlockSize::B4096 => 8,
        }
    }

    /// Persist=always.
    pub fn persist_always(&self) -> bool {
        self.request.persist == Persist::Always
    }

    /// The volume is larger: spots at the begin and the end of what is new, at a border of 1 MiB, and anywhere.
    pub fn grow(&mut self, size_bytes: u64, random: &mut Random) {
        let (old, new) = (self.size_bytes / SECTOR, size_bytes / SECTOR);
        self.size_bytes = size_bytes;
        const MIB: u64 = (1 << 20) / SECTOR;
        let border = random.within(old / MIB + 1..new / MIB + 1) * MIB;
        let wishes = [
            old.saturating_sub(SPOT_SECTORS / 2),
            new.saturating_sub(SPOT_SECTORS),
            border.saturating_sub(SPOT_SECTORS / 2),
            random.within(old..new),
            random.within(old..new),
        ];
        for wish in wishes {
            let first = wish / 8 * 8;
            let end = first + SPOT_SECTORS;
            let free = self
                .spots
                .iter()
                .all(|spot| spot.end() <= first || end <= spot.first);
            if free && end <= new {
                self.spots.push(Spot::new(first));
            }
        }
        self.spots.sort_by_key(|spot| spot.first);
    }

    fn registers(&mut self, sectors: Range<u64>) -> impl Iterator<Item = &mut Register> {
        self.spots.iter_mut().flat_map(move |spot| {
            let from = sectors.start.clamp(spot.first, spot.end()) - spot.first;
            let to = sectors.end.clamp(spot.first, spot.end()) - spot.first;
            spot.registers[from as usize..to.max(from) as usize].iter_mut()
        })
    }

    /// A write (or, with value 0, a zeroing) begins.
    pub fn begin(&mut self, sectors: Range<u64>, value: u64, id: u64, now: Moment) {
        // What is written over may be there in part.
        self.atomics.retain(|atomic| {
            atomic.write == id
                || atomic.sectors.end <= sectors.start
                || sectors.end <= atomic.sectors.start
        });
        self.registers(sectors)
            .for_each(|register| register.begin(value, id, now));
    }

    /// It ends.
    pub fn end(&mut self, sectors: Range<u64>, id: u64, acknowledged: bool, now: Moment) {
        self.registers(sectors)
            .for_each(|register| register.end(id, acknowledged, now));
    }

    /// A flush that began at `since` was acknowledged.
    pub fn flushed(&mut self, since: Moment) {
        self.registers(0..u64::MAX)
            .for_each(|register| register.flushed(since));
    }

    /// What was acknowledged of these sectors is durable.
    pub fn flushed_part(&mut self, sectors: Range<u64>, since: Moment) {
        self.registers(sectors)
            .for_each(|register| register.flushed(since));
    }

    /// What a read of sectors of a spot may return.
    pub fn allowed(&mut self, sectors: Range<u64>, now: Moment) -> Vec<Allowed> {
        self.registers(sectors)
            .map(|register| register.allowed(now))
            .collect()
    }

    /// A read of sectors of one spot returned `bytes`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_read(
        &mut self,
        sectors: Range<u64>,
        allowed: &[Allowed],
        bytes: &[u8],
        id: u64,
        now: Moment,
    ) -> Result<(), String> {
        let (number, name) = (self.number, self.name.clone());
        let first = sectors.start;
        let parts = bytes.chunks_exact(SECTOR as usize).zip(allowed);
        for (at, (register, (bytes, allowed))) in (first..).zip(self.registers(sectors).zip(parts))
        {
            let found = content::decode(bytes);
            let value = match found {
                Sector::Zero => Some(0),
                Sector::Written {
                    volume,
                    sector,
                    write,
                } if volume == number && sector == at => Some(write),
                Sector::Written { .. } | Sector::Strange => None,
            };
            let before = register.describe();
            if !value.is_some_and(|value| register.read(allowed, value, id, now)) {
                return Err(format!(
                    "volume {name}: sector {at} reads as {found:?} where it may be: {before} (moment {now}, {allowed:?})"
                ));
            }
        }
        Ok(())
    }

    /// The program stopped; after a power cut the machine starts anew. When something `loses`, what was not durable may
    /// be gone.
    pub fn stopped(&mut self, power_cut: bool, loses: bool, now: Moment) {
        self.registers(0..u64::MAX)
            .for_each(|register| register.stopped(loses, now));
        for spot in &mut self.spots {
            spot.lock = Arc::default();
        }
        if power_cut {
            let always = self.persist_always();
            self.keys.power_on(always);
        }
    }

    /// A disk without which it cannot do lost what was not durable there.
    pub fn lost(&mut self, now: Moment) {
        self.registers(0..u64::MAX)
            .for_each(|register| register.lost(now));
    }

    /// The pool was opened.
    pub fn opened(&mut self, now: Moment) {
        self.registers(0..u64::MAX)
            .for_each(|register| register.opened(now));
    }

    /// A copy for looking at another future of the same past.
    pub fn fork(&self) -> VolumeModel {
        VolumeModel {
            number: self.number,
            name: self.name.clone(),
            identity: self.identity.clone(),
            request: self.request.clone(),
            size_bytes: self.size_bytes,
            spots: self
                .spots
                .iter()
                .map(|spot| Spot {
                    first: spot.first,
                    registers: spot.registers.clone(),
                    lock: Arc::default(),
                })
                .collect(),
            keys: self.keys.clone(),
            atomics: self.atomics.clone(),
        }
    }
}

/// Volumes by number.
pub type Volumes = BTreeMap<u32, VolumeModel>;
