//! The head's side of a domain's mailbox: it reads the members' slots four times a second, takes their claims, and writes what
//! it has to tell them.

mod heartbeat;
mod post;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::volume::block_device::aligned_buffer;
use bytes::Bytes;
use fencing::coordinator::{Input, Reply};
use fencing::mailbox::{
    CopyWrite, DIRECTORY, Directory, HEAD, HeadArea, MAILBOX_BYTES, MemberSlot, Read, ReadError,
    Status, UNIT_BYTES, slot_window_bytes,
};
use fencing::{Claim, ClaimRefusal, Domain, SlotSet};
use reactor::{FileDevice, sleep};
use uuid::Uuid;

use super::running::{Item, Running};
use super::{Domains, carry_out};
use crate::events::What;
use crate::events::domain::DomainEvent;
use heartbeat::Heartbeats;

/// How often the slots are read.
const LOOK: Duration = Duration::from_millis(250);
/// How often the head area is written when there is nothing new to tell: its heartbeat.
const BEAT: Duration = Duration::from_millis(500);

type Volume = ::volume::Volume<FileDevice>;

/// What was last seen in a slot.
#[derive(Debug, Default)]
struct Seen {
    incarnation: Option<Uuid>,
    claim: Option<Uuid>,
}

struct Mailbox {
    domains: Arc<Domains>,
    running: Arc<Running>,
    incarnation: Uuid,
    seen: BTreeMap<u16, Seen>,
    heartbeats: Heartbeats,
    beat: u64,
    /// Sequence numbers to write next; `None` before the mailbox has been read for the first time.
    sequences: Option<Sequences>,
    told: Option<(HeadArea, Instant)>,
    directory: Option<Directory>,
}

struct Sequences {
    head: u64,
    directory: u64,
}

/// Runs the mailbox of a domain until the domain's task has ended.
pub(super) async fn run(domains: Arc<Domains>, running: Arc<Running>) {
    let mut mailbox = Mailbox {
        domains,
        running,
        incarnation: Uuid::new_v4(),
        seen: BTreeMap::new(),
        heartbeats: Heartbeats::default(),
        beat: 0,
        sequences: None,
        told: None,
        directory: None,
    };
    let mut failing = false;
    while !mailbox.running.has_ended() {
        match mailbox.turn().await {
            Ok(()) => failing = false,
            Err(reason) if !failing => {
                failing = true;
                let domain = mailbox.running.domain().name.clone();
                tracing::warn!(domain, reason, "the mailbox cannot be used");
            }
            Err(_) => {}
        }
        sleep(LOOK).await;
    }
}

impl Mailbox {
    async fn turn(&mut self) -> Result<(), String> {
        let domain = self.running.domain();
        let volume = self.volume(&domain)?;
        if self.sequences.is_none() {
            self.sequences = Some(Sequences::read(&volume, &domain).await?);
        }
        let slots = read_slots(&volume, &domain).await?;
        let now = Instant::now();
        for (name, member) in &domain.members {
            match slots.get(&member.slot) {
                Some(Ok(read)) if read.payload.member == *name => {
                    match read.payload.status {
                        // It has said so: nothing is to be suspected.
                        Status::Left => self.heartbeats.forget(name),
                        _ => self.heartbeats.note(name, read.payload.beat, now),
                    }
                    self.take(&domain, name, member.slot, &read.payload);
                }
                // Torn, somebody else's, or never written: no claim, no heartbeat.
                _ => {}
            }
        }
        self.heartbeats
            .keep(|name| domain.members.contains_key(name));
        self.suspect(&domain, now);
        self.tell(&volume, &domain, now).await
    }

    fn volume(&self, domain: &Domain) -> Result<Arc<Volume>, String> {
        let mut volumes = self.domains.pool.volumes().into_iter();
        let volume = volumes
            .find(|volume| volume.uuid() == domain.mailbox)
            .ok_or("its volume is not in the pool")?;
        match volume.fault() {
            Some(fault) => Err(fault),
            None => Ok(volume),
        }
    }

    /// Acts upon what a member says.
    fn take(&mut self, domain: &Domain, name: &str, slot: u16, said: &MemberSlot) {
        let seen = self.seen.entry(slot).or_default();
        if seen.incarnation != Some(said.incarnation) {
            seen.incarnation = Some(said.incarnation);
            self.running.input(Input::Incarnation {
                member: name.to_owned(),
                incarnation: said.incarnation,
            });
        }
        if said.wants_unfence && domain.is_fenced(name) {
            self.running.give(Item::Return {
                member: name.to_owned(),
                incarnation: said.incarnation,
            });
        }
        let Some(claim) = said.claim.filter(|claim| seen.claim != Some(claim.id)) else {
            return;
        };
        seen.claim = Some(claim.id);
        self.running.mail(claim.id, name);
        match group(domain, claim.group) {
            ControlFlow::Continue(group) => self.running.input(Input::Claim(Claim {
                id: claim.id,
                member: name.to_owned(),
                group,
                epoch: claim.epoch,
            })),
            ControlFlow::Break(nobody) => {
                let members: Vec<&str> = domain.members.keys().map(String::as_str).collect();
                let refused = ClaimRefusal::NoSuchMember {
                    member: format!("slot {nobody}"),
                    domain: domain.name.clone(),
                    members: members.join(", "),
                };
                self.running
                    .reply(claim.id, Some(name), Reply::ClaimRefused(refused));
            }
        }
    }

    /// Says whose heartbeat has stopped and whose goes on.
    fn suspect(&mut self, domain: &Domain, now: Instant) {
        let suspects = self.heartbeats.suspects(now);
        let before = {
            let mut observed = self.running.observed.lock();
            std::mem::replace(&mut observed.suspects, suspects.clone())
        };
        let name = || domain.name.clone();
        for member in suspects.difference(&before).cloned() {
            let domain = name();
            self.domains
                .record(What::Domain(DomainEvent::MemberSuspect { domain, member }));
        }
        for member in before.difference(&suspects).cloned() {
            if domain.members.contains_key(&member) {
                let domain = name();
                self.domains
                    .record(What::Domain(DomainEvent::MemberBack { domain, member }));
            }
        }
    }

    /// Writes what has changed, the directory first.
    async fn tell(&mut self, volume: &Volume, domain: &Domain, now: Instant) -> Result<(), String> {
        let Some(sequences) = &mut self.sequences else {
            return Ok(());
        };
        let registered = carry_out::registered(&self.domains, domain);
        let volumes = carry_out::volumes(&self.domains, domain);
        let directory = post::directory(domain, &volumes);
        if self.directory.as_ref() != Some(&directory) {
            let copy = directory.encode(domain.uuid, sequences.directory + 1);
            write(volume, copy.map_err(|error| error.to_string())?).await?;
            sequences.directory += 1;
            self.directory = Some(directory);
        }
        let mut area = {
            let observed = self.running.observed.lock();
            post::head_area(domain, &registered, &observed)
        };
        area.incarnation = self.incarnation;
        area.directory_sequence = sequences.directory;
        area.beat = self.beat;
        if let Some((told, at)) = &self.told
            && *told == area
            && now.duration_since(*at) < BEAT
        {
            return Ok(());
        }
        area.beat += 1;
        let copy = area.encode(domain.uuid, sequences.head + 1);
        write(volume, copy.map_err(|error| error.to_string())?).await?;
        sequences.head += 1;
        self.beat = area.beat;
        self.told = Some((area, now));
        Ok(())
    }
}

impl Sequences {
    /// Goes on from what a daemon before wrote.
    async fn read(volume: &Volume, domain: &Domain) -> Result<Self, String> {
        let head = read_place(volume, HEAD.offset_bytes, HEAD.copy_bytes).await?;
        let directory = read_place(volume, DIRECTORY.offset_bytes, DIRECTORY.copy_bytes).await?;
        let head = HeadArea::decode([&head.0, &head.1], Some(domain.uuid));
        let directory = Directory::decode([&directory.0, &directory.1], Some(domain.uuid));
        Ok(Self {
            head: head.map_or(0, |read| read.sequence),
            directory: directory.map_or(0, |read| read.sequence),
        })
    }
}

/// Whether there is room for the directory of a domain with these volumes.
pub(super) fn check(domain: &Domain, volumes: &[Arc<Volume>]) -> Result<(), String> {
    let directory = post::directory(domain, volumes).encode(domain.uuid, 1);
    directory.map(drop).map_err(|error| error.to_string())
}

/// The members of the slots, or a slot that is nobody's.
fn group(domain: &Domain, slots: SlotSet) -> ControlFlow<u16, std::collections::BTreeSet<String>> {
    let mut group = std::collections::BTreeSet::new();
    for slot in slots.iter() {
        let mut members = domain.members.iter();
        match members.find(|(_, member)| member.slot == slot) {
            Some((name, _)) => group.insert(name.clone()),
            None => return ControlFlow::Break(slot),
        };
    }
    ControlFlow::Continue(group)
}

type Slots = BTreeMap<u16, Result<Read<MemberSlot>, ReadError>>;

/// Reads the slots of all members with one read.
async fn read_slots(volume: &Volume, domain: &Domain) -> Result<Slots, String> {
    let windows: BTreeMap<u16, _> = domain
        .members
        .values()
        .filter_map(|member| Some((member.slot, slot_window_bytes(member.slot)?)))
        .collect();
    let (Some(first), Some(last)) = (windows.values().next(), windows.values().next_back()) else {
        return Ok(Slots::new());
    };
    let start = first.start;
    let bytes = read(volume, start, (last.end - start) as usize).await?;
    let slots = windows.iter().map(|(slot, window)| {
        // Within what was read: the windows are between the first and the last.
        let at = (window.start - start) as usize;
        let copies = [
            &bytes[at..at + UNIT_BYTES],
            &bytes[at + UNIT_BYTES..at + 2 * UNIT_BYTES],
        ];
        (*slot, MemberSlot::decode(copies, *slot, domain.uuid))
    });
    Ok(slots.collect())
}

async fn read_place(
    volume: &Volume,
    offset_bytes: u64,
    copy_bytes: usize,
) -> Result<(Bytes, Bytes), String> {
    let mut both = read(volume, offset_bytes, 2 * copy_bytes).await?;
    let second = both.split_off(copy_bytes);
    Ok((both, second))
}

async fn read(volume: &Volume, offset_bytes: u64, length_bytes: usize) -> Result<Bytes, String> {
    debug_assert!(offset_bytes + length_bytes as u64 <= MAILBOX_BYTES);
    let (result, bytes) = volume
        .read(offset_bytes, aligned_buffer(length_bytes))
        .await;
    result.map_err(|error| error.to_string())?;
    Ok(bytes.freeze())
}

async fn write(volume: &Volume, copy: CopyWrite) -> Result<(), String> {
    let mut data = aligned_buffer(copy.bytes.len());
    data.copy_from_slice(&copy.bytes);
    volume
        .write(copy.offset_bytes, data.freeze())
        .await
        .map_err(|error| error.to_string())
}
