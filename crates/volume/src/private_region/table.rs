//! Which registrant has which slot.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use reservation::{Lost, LostUntil, Nexus, Registrant, Reservation, State};
use uuid::Uuid;

use super::commit_record::CommitRecord;
use super::slot::{self, MAX_NAME_BYTES, Registration, SLOT_BYTES, SLOTS_PER_PAGE};
use super::{PrivateRegionError, REGISTRANT_CAPACITY, inconsistent};
use crate::page_store::{PAGE_BYTES, PageChange, RECORD_BYTES};

/// A state and the slot of each of its registrants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    state: State,
    slots: BTreeMap<Nexus, u16>,
}

impl Table {
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// The table for `state`, and the slots that must be written. Registrants that stay as they are keep their slot.
    pub(super) fn with(&self, state: &State) -> Result<(Table, BTreeSet<u16>), PrivateRegionError> {
        let registrants = state.registrants.len();
        if registrants > REGISTRANT_CAPACITY {
            return Err(PrivateRegionError::Full {
                registrants,
                capacity: REGISTRANT_CAPACITY,
            });
        }
        let mut slots: BTreeMap<Nexus, u16> = BTreeMap::new();
        let mut taken = [false; REGISTRANT_CAPACITY];
        let mut new: Vec<&Nexus> = Vec::new();
        let mut dirty = BTreeSet::new();
        for (nexus, registrant) in &state.registrants {
            let length_bytes = nexus.initiator.name.len();
            if length_bytes == 0 || length_bytes > MAX_NAME_BYTES {
                return Err(PrivateRegionError::Name { length_bytes });
            }
            if nexus.target_port == 0 {
                return Err(inconsistent("a registrant's target port is zero".into()));
            }
            match self.slots.get(nexus) {
                Some(&slot) => {
                    taken[usize::from(slot)] = true;
                    slots.insert(nexus.clone(), slot);
                    let before = self.state.registrants.get(nexus);
                    if before != Some(registrant)
                        || is_marked(&self.state, nexus) != is_marked(state, nexus)
                    {
                        dirty.insert(slot);
                    }
                }
                None => new.push(nexus),
            }
        }
        // There are at least as many free slots as new registrants: the sum is at most the capacity.
        let free = (0..REGISTRANT_CAPACITY as u16).filter(|slot| !taken[usize::from(*slot)]);
        for (nexus, slot) in new.into_iter().zip(free) {
            slots.insert(nexus.clone(), slot);
            dirty.insert(slot);
        }
        let table = Table {
            state: state.clone(),
            slots,
        };
        Ok((table, dirty))
    }

    /// The commit record of this table.
    pub(super) fn record(&self, boot_id: Uuid, persist_always: bool) -> CommitRecord {
        let reservation = self.state.reservation.as_ref();
        let mut slots: Vec<u16> = self.slots.values().copied().collect();
        slots.sort_unstable();
        CommitRecord {
            generation: self.state.generation,
            aptpl: self.state.aptpl,
            lost: self.state.lost.as_ref().map(Lost::until),
            persist_always,
            kind: reservation.map(|reservation| reservation.kind),
            holder_slot: reservation
                .and_then(|reservation| reservation.holder.as_ref())
                .and_then(|holder| self.slots.get(holder).copied()),
            boot_id,
            slots,
        }
    }

    /// The pages that hold the slots `dirty`, whole.
    pub(super) fn pages(&self, volume: Uuid, dirty: &BTreeSet<u16>) -> Vec<(u32, PageChange)> {
        let page_of = |slot: u16| u32::from(slot) / SLOTS_PER_PAGE as u32;
        let mut pages: BTreeMap<u32, Vec<u8>> = dirty
            .iter()
            .map(|slot| (page_of(*slot), vec![0; PAGE_BYTES as usize]))
            .collect();
        for (nexus, &slot) in &self.slots {
            if let (Some(page), Some(registrant)) = (
                pages.get_mut(&page_of(slot)),
                self.state.registrants.get(nexus),
            ) {
                let at = usize::from(slot) % SLOTS_PER_PAGE * SLOT_BYTES;
                let registration = Registration {
                    nexus: nexus.clone(),
                    registrant: *registrant,
                    recovered: is_marked(&self.state, nexus),
                };
                slot::encode(&mut page[at..at + SLOT_BYTES], volume, slot, &registration);
            }
        }
        pages
            .into_iter()
            .map(|(page, bytes)| (page, PageChange::Write(bytes.into())))
            .collect()
    }

    /// Reads a table from a commit record and the used pages.
    pub(super) fn decode(
        volume: Uuid,
        record: &[u8; RECORD_BYTES],
        used: &[u32],
        pages: &[Bytes],
    ) -> Result<Table, PrivateRegionError> {
        let record =
            CommitRecord::decode(record).map_err(|problem| inconsistent(problem.into()))?;
        let pages: BTreeMap<u32, &Bytes> = used.iter().copied().zip(pages).collect();
        let mut slots = BTreeMap::new();
        let mut registrants: BTreeMap<Nexus, Registrant> = BTreeMap::new();
        let mut marked = BTreeSet::new();
        let mut holder = None;
        for slot in record.slots {
            let problem = |problem| PrivateRegionError::Slot { slot, problem };
            let page = pages
                .get(&(u32::from(slot) / SLOTS_PER_PAGE as u32))
                .ok_or(problem("its page was never written"))?;
            let at = usize::from(slot) % SLOTS_PER_PAGE * SLOT_BYTES;
            let bytes = page
                .get(at..at + SLOT_BYTES)
                .ok_or(problem("its page is too short"))?;
            let Registration {
                nexus,
                registrant,
                recovered,
            } = slot::decode(bytes, volume, slot).map_err(problem)?;
            if recovered && record.lost != Some(LostUntil::Registered) {
                return Err(problem(
                    "it is marked as recovered, and nothing waits for it",
                ));
            }
            if recovered {
                marked.insert(nexus.clone());
            }
            if record.holder_slot == Some(slot) {
                holder = Some(nexus.clone());
            }
            slots.insert(nexus.clone(), slot);
            if registrants.insert(nexus, registrant).is_some() {
                return Err(problem("its nexus has another slot too"));
            }
        }
        let state = State {
            generation: record.generation,
            aptpl: record.aptpl,
            registrants,
            reservation: record.kind.map(|kind| Reservation { kind, holder }),
            lost: record.lost.map(|until| match until {
                LostUntil::Replaced => Lost::UntilReplaced,
                LostUntil::Registered => Lost::UntilRegistered { recovered: marked },
            }),
        };
        state
            .check()
            .map_err(|error| inconsistent(error.to_string()))?;
        Ok(Table { state, slots })
    }
}

/// Whether the slot of `nexus` says that its registration was recovered. Where everybody waits for REPLACE LOST RESERVATION
/// no slot does.
fn is_marked(state: &State, nexus: &Nexus) -> bool {
    match &state.lost {
        Some(Lost::UntilRegistered { recovered }) => recovered.contains(nexus),
        Some(Lost::UntilReplaced) | None => false,
    }
}
