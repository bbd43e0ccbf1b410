//! Plexes that come and go.

use std::sync::atomic::Ordering;

use thiserror::Error;
use uuid::Uuid;

use super::log::{Image, State};
use super::{RegionTracker, Regions};
use crate::block_device::BlockDevice;

/// Why a plex cannot be taken out.
#[derive(Debug, Error)]
pub(crate) enum DetachError {
    /// It has the only valid copy of some regions.
    #[error("plex {plex} has the only copy of {} regions", regions.count_ones())]
    LastCopy {
        /// The plex.
        plex: Uuid,
        /// The regions.
        regions: Regions,
    },
    /// Other plexes failed or hung while their logs were written; they are reported.
    #[error("the region log of {} other plexes could not be written", .0.len())]
    Logs(Vec<(Uuid, String)>),
}

impl<D: BlockDevice> RegionTracker<D> {
    /// The first step of a detach: the plexes take no part in what is not known to be on them. Returns the change that
    /// must be durable on the others before the configuration says so. Again for the same plexes it changes nothing.
    ///
    /// # Errors
    /// [`DetachError::LastCopy`], and nothing is changed then. The check and the change are one step under the mutex, so
    /// that two plexes cannot both go because each counts on the other.
    pub(in crate::volume) fn begin_leaving(&self, plexes: &[Uuid]) -> Result<u64, DetachError> {
        let mut image = self.image.lock();
        self.check_other_copies(&image, plexes)?;
        let next = image.sequence + 1;
        let Image {
            sequence,
            dirty,
            members,
        } = &mut *image;
        let mut needed = dirty.sequence;
        for member in members {
            if !plexes.contains(&member.slot.uuid) {
                continue;
            }
            if member.is_logged() {
                member.state = State::Leaving;
                // Before anything of it is durable: from here on nobody who fails on it answers early.
                member.slot.leaving.store(true, Ordering::SeqCst);
            }
            if member.state == State::Leaving {
                for region in dirty.set.iter() {
                    if member.stale.set.set(region) {
                        member.stale.sequence = next;
                        *sequence = next;
                    }
                }
            }
            needed = needed.max(member.stale.sequence);
        }
        drop(image);
        // Those who wait for the log of a plex that leaves need not.
        self.notify();
        Ok(needed)
    }

    fn check_other_copies(&self, image: &Image<D>, plexes: &[Uuid]) -> Result<(), DetachError> {
        let mut nowhere = Regions::new(self.geometry.count, true);
        for member in &image.members {
            let stays = member.state == State::Attached && !plexes.contains(&member.slot.uuid);
            if stays {
                let mut valid = nowhere.clone();
                valid.subtract(&member.stale.set);
                nowhere.subtract(&valid);
            }
        }
        for member in &image.members {
            // Also those that failed before the volume is served.
            let holds = member.state == State::Attached
                || member.state == State::Leaving && member.trouble.is_some();
            if !plexes.contains(&member.slot.uuid) || !holds {
                continue;
            }
            let mut regions = nowhere.clone();
            regions.subtract(&member.stale.set);
            if !regions.is_empty() {
                return Err(DetachError::LastCopy {
                    plex: member.slot.uuid,
                    regions,
                });
            }
        }
        Ok(())
    }

    /// Before a layout is put in place: what the plexes that are not in it will be stale in becomes visible, so that nobody
    /// who still has an older layout reads from them, or copies, what they missed. That is also what is dirty: writes to
    /// it say nothing more.
    pub(in crate::volume) fn before_publish(&self, attached: &[Uuid]) {
        let image = self.image.lock();
        for member in &image.members {
            if !attached.contains(&member.slot.uuid) {
                member.slot.stale.union(&member.stale.set);
                member.slot.stale.union(&image.dirty.set);
            }
        }
    }

    /// After a layout with this number is in place.
    pub(in crate::volume) fn after_publish(
        &self,
        number: u64,
        attached: &[Uuid],
        recorded: &[Uuid],
    ) {
        let mut image = self.image.lock();
        let Image { dirty, members, .. } = &mut *image;
        for member in members {
            let uuid = member.slot.uuid;
            if attached.contains(&uuid) {
                if member.state == State::Joining(None) {
                    member.state = State::Joining(Some(number));
                }
                continue;
            }
            let gone = !recorded.contains(&uuid);
            match member.state {
                State::Gone(_) => continue,
                // On its way in by a later commit.
                State::Joining(None) => continue,
                State::Attached | State::Joining(Some(_)) | State::Leaving | State::Detached => {
                    member.state = if gone {
                        State::Gone(number)
                    } else {
                        State::Detached
                    };
                }
            }
            member.stale.set.union(&dirty.set);
            // What became dirty since `before_publish`.
            member.slot.stale.union(&member.stale.set);
            member.log = None;
            member.trouble = None;
            let count = self.geometry.count;
            member.slot.copying.store(&Regions::new(count, false));
            // Only now, with the new layout in place: see the text of the module.
            member.slot.leaving.store(false, Ordering::SeqCst);
        }
        drop(image);
        self.notify();
    }

    /// Nobody uses a layout that was published before the one with this number: plexes that came with it, or before, are
    /// written by everybody.
    pub(in crate::volume) fn drained(&self, number: u64) {
        let mut image = self.image.lock();
        for member in &mut image.members {
            if matches!(member.state, State::Joining(Some(at)) if at <= number) {
                member.state = State::Attached;
                // What a write is making stale now would not become visible any more. It is not shown before it is durable
                // to anybody: its regions are not dirty in sight until then.
                member.slot.stale.union(&member.stale.set);
            }
        }
        image
            .members
            .retain(|member| !matches!(member.state, State::Gone(at) if at <= number));
    }

    /// Whether the plex takes part or is on its way in or out.
    pub(in crate::volume) fn is_member(&self, plex: Uuid) -> bool {
        let image = self.image.lock();
        image.members.iter().any(|member| {
            member.slot.uuid == plex && !matches!(member.state, State::Detached | State::Gone(_))
        })
    }

    /// Whether some plex is not yet written by everybody.
    pub(in crate::volume) fn is_joining(&self, plex: Uuid) -> bool {
        let image = self.image.lock();
        image
            .members
            .iter()
            .any(|member| member.slot.uuid == plex && matches!(member.state, State::Joining(_)))
    }

    /// Makes regions of a plex stale in the image; see [`Self::show_stale`].
    ///
    /// # Errors
    /// [`DetachError::LastCopy`].
    pub(in crate::volume) fn mark_stale(
        &self,
        plex: Uuid,
        regions: &Regions,
    ) -> Result<u64, DetachError> {
        let mut image = self.image.lock();
        let mut only = regions.clone();
        for member in &image.members {
            if member.state == State::Attached && member.slot.uuid != plex {
                let mut valid = only.clone();
                valid.subtract(&member.stale.set);
                only.subtract(&valid);
            }
        }
        let next = image.sequence + 1;
        let Image {
            sequence, members, ..
        } = &mut *image;
        let Some(member) = members.iter_mut().find(|m| m.slot.uuid == plex) else {
            return Ok(0);
        };
        only.subtract(&member.stale.set);
        if !only.is_empty() {
            return Err(DetachError::LastCopy {
                plex,
                regions: only,
            });
        }
        if member.stale.set.union(regions) {
            member.stale.sequence = next;
            *sequence = next;
        }
        Ok(member.stale.sequence)
    }

    /// After the change of [`Self::mark_stale`] is durable on every log, the plex's own included.
    pub(in crate::volume) fn show_stale(&self, plex: Uuid, regions: &Regions) {
        if let Some(slot) = self.slot(plex) {
            slot.stale.union(regions);
        }
        self.notify();
    }

    /// Takes back [`Self::mark_stale`], which could not be made durable.
    pub(in crate::volume) fn unmark_stale(&self, plex: Uuid, regions: &Regions) {
        let mut image = self.image.lock();
        let next = image.step();
        if let Some(member) = image.member(plex) {
            let mut new = regions.clone();
            for region in regions.iter() {
                if member.slot.stale.get(region) {
                    new.clear(region);
                }
            }
            member.stale.set.subtract(&new);
            member.stale.sequence = next;
        }
    }

    /// Of `regions`, those that were copied to every plex that was stale there become valid in the image: (plex, region).
    /// See [`Self::show_valid`].
    pub(in crate::volume) fn clear_stale(&self, regions: &[u32]) -> (Vec<(Uuid, u32)>, u64) {
        let mut image = self.image.lock();
        let next = image.sequence + 1;
        let mut cleared = Vec::new();
        for member in &mut image.members {
            if member.state != State::Attached {
                continue;
            }
            for region in regions {
                if member.slot.copying.get(*region) && member.stale.set.clear(*region) {
                    cleared.push((member.slot.uuid, *region));
                    member.stale.sequence = next;
                }
            }
        }
        if !cleared.is_empty() {
            image.sequence = next;
        }
        (cleared, next)
    }

    /// After the change of [`Self::clear_stale`] is durable: the plexes take part there.
    pub(in crate::volume) fn show_valid(&self, cleared: &[(Uuid, u32)]) {
        let image = self.image.lock();
        for (plex, region) in cleared {
            let member = image.members.iter().find(|m| m.slot.uuid == *plex);
            // One that began to leave meanwhile may have missed a write there.
            if let Some(member) = member
                && !member.stale.set.get(*region)
            {
                member.slot.stale.clear(*region);
                member.slot.copying.clear(*region);
            }
        }
        drop(image);
        self.notify();
    }

    /// Takes back [`Self::clear_stale`], which could not be made durable.
    pub(in crate::volume) fn restore_stale(&self, cleared: &[(Uuid, u32)]) {
        let mut image = self.image.lock();
        let next = image.step();
        for (plex, region) in cleared {
            if let Some(member) = image.member(*plex) {
                member.stale.set.set(*region);
                member.stale.sequence = next;
            }
        }
        drop(image);
        self.notify();
    }

    /// What must be detached before the volume is served, and why.
    pub(in crate::volume) fn to_detach(&self) -> Vec<(Uuid, String)> {
        let image = self.image.lock();
        image
            .members
            .iter()
            .filter_map(|member| Some((member.slot.uuid, member.trouble.clone()?)))
            .collect()
    }

    /// A plex failed before the volume is served.
    pub(in crate::volume) fn fail_at_open(&self, plex: Uuid, reason: String) {
        let mut image = self.image.lock();
        // What it may miss becomes stale when it is detached: it may have the only copy.
        if let Some(member) = image.member(plex) {
            member.state = State::Leaving;
            member.slot.leaving.store(true, Ordering::SeqCst);
            member.log = None;
            member.trouble.get_or_insert(reason);
        }
    }
}
