//! Changes of a volume that touch no extent: its name and its grants.

use super::{Pool, PoolError, check_name};
use crate::block_device::BlockDevice;
use crate::config::{Access, Change, VolumeRecord};

/// Volume sizes are multiples of this, in bytes.
pub const SIZE_UNIT_BYTES: u64 = 4096;
/// Largest volume in bytes (1 EiB), far below what arithmetic could not hold.
pub const MAX_SIZE_BYTES: u64 = 1 << 60;
/// Number of logical unit numbers (single level addressing, SAM-5 4.7.7.2).
pub(super) const LUNS: u16 = 16_384;

pub(super) fn check_size(size_bytes: u64) -> Result<(), PoolError> {
    let problem = if size_bytes == 0 {
        "a volume has at least 4096 bytes"
    } else if !size_bytes.is_multiple_of(SIZE_UNIT_BYTES) {
        "the size must be a multiple of 4096"
    } else if size_bytes > MAX_SIZE_BYTES {
        "a volume has at most 1 EiB"
    } else {
        return Ok(());
    };
    Err(PoolError::InvalidSize {
        size_bytes,
        problem,
    })
}

impl<D: BlockDevice> Pool<D> {
    /// Gives a volume another name. Its identity for initiators (LUN, NAA, serial number, registrations) stays.
    ///
    /// # Errors
    /// [`PoolError::NameTaken`], [`PoolError::InvalidName`], [`PoolError::NoSuchVolume`].
    pub async fn volume_rename(&self, old: &str, new: &str) -> Result<(), PoolError> {
        check_name("volume", new)?;
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let volume = self.volume(old)?;
        if old == new {
            return Ok(());
        }
        self.check_volume_name(&mut inner, new)?;
        let mut record = VolumeRecord::clone(&volume.record());
        record.name = new.to_owned();
        inner
            .commit(vec![Change::Volume(Box::new(record.clone()))])
            .await?;
        volume.adopt(record, None);
        Ok(())
    }

    /// Takes back what was granted to `initiator`, as if it had never been named.
    ///
    /// # Errors
    /// [`PoolError`].
    pub async fn forget_grant(&self, volume: &str, initiator: &str) -> Result<(), PoolError> {
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let volume = self.volume(volume)?;
        let mut record = VolumeRecord::clone(&volume.record());
        if record.grants.remove(initiator).is_none() {
            return Ok(());
        }
        inner
            .commit(vec![Change::Volume(Box::new(record.clone()))])
            .await?;
        volume.adopt(record, None);
        Ok(())
    }

    /// Sets what `initiator` (a name, `*`, or `domain:NAME` for the members of a fence domain) may do; `None` for a named initiator is stored too (it overrides `*`).
    ///
    /// # Errors
    /// [`PoolError`].
    pub async fn grant(
        &self,
        volume: &str,
        initiator: &str,
        access: Access,
    ) -> Result<(), PoolError> {
        let valid = (1..=223).contains(&initiator.len())
            && initiator
                .chars()
                .all(|c| !c.is_whitespace() && !c.is_control())
            && (initiator == "*" || !initiator.contains('*'));
        if !valid {
            return Err(PoolError::InvalidInitiator {
                name: initiator.into(),
            });
        }
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let volume = self.volume(volume)?;
        let mut record = VolumeRecord::clone(&volume.record());
        if initiator == "*" && access == Access::None {
            record.grants.remove("*");
        } else {
            // Names of initiators compare without case (RFC 7143 4.2.7.1), those of domains with.
            let name = match initiator.starts_with("domain:") {
                true => initiator.to_owned(),
                false => initiator.to_lowercase(),
            };
            record.grants.insert(name, access);
        }
        inner
            .commit(vec![Change::Volume(Box::new(record.clone()))])
            .await?;
        volume.adopt(record, None);
        Ok(())
    }
}
