//! Which pool the devices that are given make up, and how each device stands: pure functions.
//!
//! Between the two comes the page store's own verdict on the copies of the configuration (`page_store::verdict`): what is
//! current, or lost quorum, fork, foreign, torn, empty. Nothing that a label says is believed against the configuration.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::PoolError;
use crate::config::{Config, DeviceRecord};
use crate::label::Areas;

/// What one device that is given says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// Where it was opened.
    pub(super) path: String,
    /// Its label; or why it has none that can be used.
    pub(super) says: Result<Says, String>,
}

/// A usable label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Says {
    /// The pool.
    pub(super) pool: Uuid,
    /// The device.
    pub(super) device: Uuid,
    /// Where its areas are.
    pub(super) areas: Areas,
}

/// How a device of the configuration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// There, and its copy of the configuration is current.
    Current,
    /// There, but its copy is behind or damaged: it is repaired, and nothing in it was believed.
    Stale,
    /// There, but recorded as failed: not used until an operator brings it back.
    Failed,
    /// Not given, or given and unusable.
    Missing,
}

/// The pool that the offers belong to.
///
/// # Errors
/// [`PoolError::Duplicate`], [`PoolError::MixedPools`], [`PoolError::NoPool`].
pub(super) fn pool_of(offers: &[Offer]) -> Result<Uuid, PoolError> {
    let usable: Vec<(&Offer, Says)> = offers
        .iter()
        .filter_map(|offer| Some((offer, *offer.says.as_ref().ok()?)))
        .collect();
    for (index, (offer, says)) in usable.iter().enumerate() {
        let earlier = &usable[..index];
        if let Some((twin, _)) = earlier
            .iter()
            .find(|(_, other)| other.device == says.device)
        {
            return Err(PoolError::Duplicate {
                first: twin.path.clone(),
                second: offer.path.clone(),
            });
        }
        if let Some((other, theirs)) = earlier.iter().find(|(_, other)| other.pool != says.pool) {
            return Err(PoolError::MixedPools {
                first: other.path.clone(),
                first_pool: theirs.pool,
                second: offer.path.clone(),
                second_pool: says.pool,
            });
        }
    }
    match usable.first() {
        Some((_, says)) => Ok(says.pool),
        None => Err(PoolError::NoPool {
            reasons: unusable(offers).join("; "),
        }),
    }
}

/// Why each of the offers without a usable label cannot be used.
pub(super) fn unusable(offers: &[Offer]) -> Vec<String> {
    offers
        .iter()
        .filter_map(|offer| {
            let why = offer.says.as_ref().err()?;
            Some(format!("{}: {why}", offer.path))
        })
        .collect()
}

/// How every device of the configuration stands. What is offered and is not in the configuration (an addition that was
/// interrupted, a device that was removed while it was away) has no standing: it is left out.
///
/// # Errors
/// [`PoolError::Inconsistent`] when a label and the configuration disagree about where the areas are.
pub(super) fn standings(
    config: &Config,
    offers: &[Offer],
    current: &BTreeSet<Uuid>,
) -> Result<BTreeMap<Uuid, Standing>, PoolError> {
    let mut standings = BTreeMap::new();
    for record in config.devices.values() {
        let offer = offers.iter().find_map(|offer| {
            let says = offer.says.as_ref().ok()?;
            (says.pool == config.pool.uuid && says.device == record.uuid).then_some((offer, says))
        });
        let standing = match offer {
            None => Standing::Missing,
            Some((offer, says)) if !same_areas(record, says.areas) => {
                return Err(PoolError::Inconsistent {
                    problem: format!(
                        "the label of {} and the configuration disagree about its areas",
                        offer.path
                    ),
                });
            }
            Some(_) if record.failed.is_some() => Standing::Failed,
            Some(_) if current.contains(&record.uuid) => Standing::Current,
            Some(_) => Standing::Stale,
        };
        standings.insert(record.uuid, standing);
    }
    Ok(standings)
}

fn same_areas(record: &DeviceRecord, areas: Areas) -> bool {
    record.data_offset_bytes == areas.data_offset_bytes
        && record.data_length_bytes == areas.data_length_bytes
}

#[cfg(test)]
mod tests;
