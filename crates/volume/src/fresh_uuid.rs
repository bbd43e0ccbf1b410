//! New random identities.

use uuid::Uuid;

/// A new random UUID. In a simulation it comes from the seed, so that a run can be repeated: the order of devices and
/// volumes, and with it the order of operations, follows from identities.
pub(crate) fn fresh_uuid() -> Uuid {
    #[cfg(any(test, feature = "sim"))]
    if let Some(bits) = crate::sim::identity_bits() {
        return uuid::Builder::from_random_bytes(bits).into_uuid();
    }
    Uuid::new_v4()
}
