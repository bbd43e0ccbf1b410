//! `keys recover`: a person chooses one copy of the keys where no quorum can.

use std::sync::Arc;

use ::volume::pool::{KeysInspection, KeysVersion};

use super::keys::{lost_until, registrations, replicas, reservation};
use super::{Operations, explain, lock};
use crate::control::model::{Keys, KeysCopy, KeysRecovery, LostUntil};
use crate::events::{Operator, What};
use crate::failure::Failure;

impl Operations {
    /// The copies of the keys of `volume`, whether or not it is served.
    pub(super) fn keys_inspect(&self, volume: &str) -> Result<KeysInspection, Failure> {
        let (pool, owned) = (Arc::clone(&self.pool), volume.to_owned());
        self.run(move || async move { pool.keys_inspect(&owned).await })?
            .map_err(|error| explain(&error))
    }

    /// What taking the keys of `volume` from the device `from` would do.
    pub(super) fn keys_recover_show(
        &self,
        volume: &str,
        from: &str,
    ) -> Result<KeysRecovery, Failure> {
        let inspection = self.keys_inspect(volume)?;
        self.device_info(from)?;
        present(volume, from, inspection)
    }

    /// Goes on from the copy of the keys on `from`, lost `until` what ends that; without it an end is put to that at once.
    pub(super) fn keys_recover(
        &self,
        volume: &str,
        from: &str,
        proof: u64,
        until: Option<LostUntil>,
        operator: &Operator,
    ) -> Result<Keys, Failure> {
        let _shared = self.shared()?;
        let order = self.volume_lock(volume);
        let _order = lock(&order);
        let shown = self.keys_recover_show(volume, from)?;
        let _acting = self.audit.acting(volume, operator);
        let (pool, owned, device) = (Arc::clone(&self.pool), volume.to_owned(), from.to_owned());
        let before = self.volume(volume)?;
        let (target, lun) = (Arc::clone(&self.target), before.lun());
        self.run(move || async move { target.remove_logical_unit(lun).await })?;
        // What is cleared in a moment must not end by itself before.
        let lost_until = match until {
            Some(LostUntil::Registered) => reservation::LostUntil::Registered,
            Some(LostUntil::Replaced) | None => reservation::LostUntil::Replaced,
        };
        // The pool looks once more, and refuses when it finds anything else than what was shown.
        let recovered = self.run(move || async move {
            pool.keys_recover(&owned, &device, proof, lost_until).await
        })?;
        let recovered = match recovered {
            Ok(recovered) => recovered,
            Err(error) => {
                let failure = explain(&error);
                return Err(match self.serve(before) {
                    Ok(()) => failure,
                    Err(again) => failure.advise(format!("restart the daemon ({again})")),
                });
            }
        };
        self.audit.log().record(What::KeysRecovered {
            volume: volume.to_owned(),
            device: from.to_owned(),
            copy_sequence: shown.chosen.sequence,
            until,
            by: operator.clone(),
        });
        self.serve(recovered).map_err(|failure| {
            Failure::failed(format!(
                "the keys of volume {volume} are recovered, but it cannot be served: {failure}"
            ))
            .advise("restart the daemon")
        })?;
        if until.is_none() {
            self.end_lost_information(volume)?;
        }
        self.keys(volume)
    }

    pub(super) fn keys_clear_lost(
        &self,
        volume: &str,
        operator: &Operator,
    ) -> Result<Keys, Failure> {
        let _shared = self.shared()?;
        let order = self.volume_lock(volume);
        let _order = lock(&order);
        let _acting = self.audit.acting(volume, operator);
        self.end_lost_information(volume)?;
        self.keys(volume)
    }

    fn end_lost_information(&self, name: &str) -> Result<(), Failure> {
        let (target, lun) = (Arc::clone(&self.target), self.volume(name)?.lun());
        self.run(move || async move { target.end_lost_information(lun).await })?
            .map_err(|error| {
                Failure::refused(format!(
                    "the keys of volume {name} are not cleared: {error}"
                ))
            })
    }
}

fn present(volume: &str, from: &str, inspection: KeysInspection) -> Result<KeysRecovery, Failure> {
    let Some(reason) = inspection.problem else {
        return Err(Failure::refused(format!(
            "the keys of volume {volume} have their quorum: there is nothing to recover"
        ))
        .advise("'ringfence keys' shows them; a copy that is behind is repaired by itself"));
    };
    let is_chosen = |version: &KeysVersion| version.devices.iter().any(|device| device == from);
    let chosen = inspection
        .versions
        .iter()
        .find(|version| is_chosen(version));
    let Some(chosen) = chosen else {
        let readable: Vec<String> = inspection
            .versions
            .iter()
            .flat_map(|version| version.devices.clone())
            .collect();
        return Err(Failure::refused(format!(
            "device {from} has no copy of the keys of volume {volume} that can be read"
        ))
        .advise(match readable.as_slice() {
            [] => "no device has one: bring one of them back first".to_owned(),
            devices => format!("there is one on {}", devices.join(", ")),
        }));
    };
    let others = inspection
        .versions
        .iter()
        .filter(|version| !is_chosen(version));
    Ok(KeysRecovery {
        volume: volume.to_owned(),
        reason,
        proof: chosen.token,
        chosen: copy(chosen)?,
        others: others.map(copy).collect::<Result<_, _>>()?,
        unreadable: replicas(inspection.replicas)
            .into_iter()
            .filter(|replica| replica.sequence.is_none())
            .collect(),
    })
}

fn copy(version: &KeysVersion) -> Result<KeysCopy, Failure> {
    let state = version.state.as_ref().map_err(|why| {
        Failure::failed(format!(
            "the copy of the keys on {} cannot be understood: {why}",
            version.devices.join(", ")
        ))
    })?;
    Ok(KeysCopy {
        devices: version.devices.clone(),
        sequence: version.sequence,
        generation: state.generation,
        lost_until: lost_until(state),
        reservation: reservation(state),
        registrations: registrations(state),
    })
}
