//! Copies, layouts and devices of a volume.

use std::sync::Arc;

use ::volume::pool::LayoutRequest;

use super::{Operations, explain, lock};
use crate::control::model::Volume;
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
}
