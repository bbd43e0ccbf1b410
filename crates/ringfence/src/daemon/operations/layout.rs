//! Copies, layouts and devices of a volume.

use std::sync::Arc;

use ::volume::PoolError;
use ::volume::pool::LayoutRequest;
use ::volume::pool::jobs::{JobInfo, Migrate, WhichPlex};

use super::jobs::describe;
use super::{Operations, explain, lock};
use crate::control::model::{Job, Volume};
use crate::control::protocol::{LayoutName, Shape};
use crate::events::{Operator, What};
use crate::failure::Failure;
use crate::names::object_name;

/// What `shape` says of the layout; `None` when it says nothing.
pub(super) fn layout_of(shape: &Shape) -> Result<Option<LayoutRequest>, Failure> {
    let striped = shape.columns.is_some() || shape.stripe_unit_bytes.is_some();
    match shape.layout {
        Some(LayoutName::Linear) if striped => Err(Failure::usage(
            "a linear volume has neither columns nor a stripe unit",
        )
        .advise("leave --layout linear out, or say --layout striped")),
        Some(LayoutName::Linear) => Ok(Some(LayoutRequest::Linear)),
        None if !striped => Ok(None),
        Some(LayoutName::Striped) | None => Ok(Some(LayoutRequest::Striped {
            columns: shape.columns,
            stripe_unit_bytes: shape.stripe_unit_bytes,
        })),
    }
}

impl Operations {
    pub(super) fn volume_rename(
        &self,
        name: &str,
        new_name: &str,
        operator: &Operator,
    ) -> Result<Volume, Failure> {
        object_name(new_name).map_err(Failure::usage)?;
        let _shared = self.shared()?;
        // Always in the same order, so that two of them cannot wait for each other.
        let mut names = [name, new_name];
        names.sort_unstable();
        let [first, second] = names.map(|name| self.volume_lock(name));
        let _first = lock(&first);
        let _second = (!Arc::ptr_eq(&first, &second)).then(|| lock(&second));
        let volume = self.volume(name)?;
        if self.is_mailbox(&volume) {
            return Err(Failure::refused(format!(
                "volume {name} is the mailbox of a fence domain and is named after it"
            )));
        }
        let pool = Arc::clone(&self.pool);
        let (old, new) = (name.to_owned(), new_name.to_owned());
        self.run(move || async move { pool.volume_rename(&old, &new).await })?
            .map_err(|error| explain(&error))?;
        self.audit.log().record(What::VolumeRenamed {
            volume: name.to_owned(),
            name: new_name.to_owned(),
            by: operator.clone(),
        });
        self.volume_show(new_name)
    }

    pub(super) fn volume_add_mirror(
        &self,
        name: &str,
        on: Vec<String>,
        rate: Option<u64>,
        operator: &Operator,
    ) -> Result<Vec<Job>, Failure> {
        let _shared = self.shared()?;
        let order = self.volume_lock(name);
        let _order = lock(&order);
        let _acting = self.audit.acting(name, operator);
        let confined = on.is_empty() && !self.volume(name)?.record().placement.is_empty();
        let (pool, owned) = (Arc::clone(&self.pool), name.to_owned());
        let begun =
            self.run(move || async move { pool.volume_add_mirror(&owned, &on, rate).await })?;
        let no_room = matches!(
            begun,
            Err(PoolError::NoSpace { .. } | PoolError::TooFewDevices { .. })
        );
        self.begun(begun.map(|job| vec![job])).map_err(|failure| {
            if confined && no_room {
                failure.advise(
                    "the volume keeps to the devices that it was made on or moved to; name others with --on",
                )
            } else {
                failure
            }
        })
    }

    pub(super) fn volume_migrate(
        &self,
        name: &str,
        to: Vec<String>,
        keys_to: Vec<String>,
        shape: &Shape,
        rate: Option<u64>,
        operator: &Operator,
    ) -> Result<Vec<Job>, Failure> {
        let request = Migrate {
            to,
            keys_to,
            layout: layout_of(shape)?,
            mirrors: shape.mirrors,
            rate,
        };
        let _shared = self.shared()?;
        let order = self.volume_lock(name);
        let _order = lock(&order);
        let _acting = self.audit.acting(name, operator);
        let (pool, owned) = (Arc::clone(&self.pool), name.to_owned());
        let begun = self.run(move || async move { pool.volume_migrate(&owned, request).await })?;
        self.begun(begun.map(|job| vec![job]))
    }

    /// The jobs that have begun, as the command line shows them.
    pub(super) fn begun(
        &self,
        begun: Result<Vec<JobInfo>, PoolError>,
    ) -> Result<Vec<Job>, Failure> {
        let begun = begun.map_err(|error| explain(&error))?;
        let jobs = begun.into_iter().map(|info| describe(info, None));
        Ok(jobs.collect())
    }

    pub(super) fn volume_remove_mirror(
        &self,
        name: &str,
        plex: Option<usize>,
        on: Option<String>,
        operator: &Operator,
    ) -> Result<Volume, Failure> {
        let which = match (plex, on) {
            (Some(_), Some(_)) => {
                return Err(Failure::usage(
                    "name the copy by its number or by its device",
                ));
            }
            (Some(position), None) => WhichPlex::Position(position),
            (None, Some(device)) => WhichPlex::On(device),
            (None, None) => WhichPlex::Any,
        };
        let _shared = self.shared()?;
        let order = self.volume_lock(name);
        let _order = lock(&order);
        let before = self.volume_show(name)?;
        let (pool, owned) = (Arc::clone(&self.pool), name.to_owned());
        self.run(move || async move { pool.volume_remove_mirror(&owned, which).await })?
            .map_err(|error| explain(&error))?;
        let after = self.volume_show(name)?;
        let gone = before
            .plexes
            .into_iter()
            .find(|plex| after.plexes.iter().all(|left| left.uuid != plex.uuid));
        self.audit.log().record(What::MirrorRemoved {
            volume: name.to_owned(),
            devices: gone.map(|plex| plex.devices).unwrap_or_default(),
            by: operator.clone(),
        });
        Ok(after)
    }
}
