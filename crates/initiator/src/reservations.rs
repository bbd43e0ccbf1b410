//! PERSISTENT RESERVE OUT and IN (SPC-4 6.15, 6.16).

use bytes::{Bytes, BytesMut};
use scsi::cdb::{
    PersistentReserveIn, PersistentReserveInAction, PersistentReserveOut,
    PersistentReserveOutAction,
};
use scsi::pr::{
    BasicParameters, Capabilities, FullStatus, LU_SCOPE, MoveParameters, OutParameters,
    ReservationDescriptor,
};
use scsi::{Cdb, Lun};

use crate::error::Error;
use crate::session::Session;

/// Persistent reservation types (SPC-4 6.15.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReservationType {
    /// 1
    WriteExclusive = 1,
    /// 3
    ExclusiveAccess = 3,
    /// 5
    WriteExclusiveRegistrantsOnly = 5,
    /// 6
    ExclusiveAccessRegistrantsOnly = 6,
    /// 7
    WriteExclusiveAllRegistrants = 7,
    /// 8
    ExclusiveAccessAllRegistrants = 8,
}

/// Keys of a request: RESERVATION KEY and SERVICE ACTION RESERVATION KEY.
fn keys(reservation_key: u64, service_action_reservation_key: u64) -> BasicParameters {
    BasicParameters {
        reservation_key,
        service_action_reservation_key,
        ..BasicParameters::default()
    }
}

/// Each of these runs one command; errors are those of [`Session::command`]
/// ([`Error::is_reservation_conflict`] tells conflicts), and [`Error::Parse`] for data that makes no sense.
impl Session {
    /// PERSISTENT RESERVE OUT with any parameters. `kind` is the TYPE field.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn persistent_reserve_out(
        &mut self,
        lun: Lun,
        action: PersistentReserveOutAction,
        kind: u8,
        parameters: OutParameters,
    ) -> Result<(), Error> {
        let list = Bytes::from(parameters.encode());
        let cdb = Cdb::PersistentReserveOut(PersistentReserveOut {
            action,
            scope: LU_SCOPE,
            kind,
            // A list of TransportIDs never comes near 2^32 bytes.
            parameter_list_length: u32::try_from(list.len()).unwrap_or(u32::MAX),
        });
        self.run(lun, cdb, list, 0).map(drop)
    }

    fn basic(
        &mut self,
        lun: Lun,
        action: PersistentReserveOutAction,
        kind: u8,
        parameters: BasicParameters,
    ) -> Result<(), Error> {
        self.persistent_reserve_out(lun, action, kind, OutParameters::Basic(parameters))
    }

    /// REGISTER: replaces key `old` (0 when not registered) with `new` (0 to unregister).
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn register(&mut self, lun: Lun, old: u64, new: u64, aptpl: bool) -> Result<(), Error> {
        let parameters = BasicParameters {
            aptpl,
            ..keys(old, new)
        };
        self.basic(lun, PersistentReserveOutAction::Register, 0, parameters)
    }

    /// REGISTER AND IGNORE EXISTING KEY.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn register_and_ignore(&mut self, lun: Lun, new: u64, aptpl: bool) -> Result<(), Error> {
        let parameters = BasicParameters {
            aptpl,
            ..keys(0, new)
        };
        let action = PersistentReserveOutAction::RegisterAndIgnoreExistingKey;
        self.basic(lun, action, 0, parameters)
    }

    /// RESERVE.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn reserve(&mut self, lun: Lun, key: u64, kind: ReservationType) -> Result<(), Error> {
        self.basic(
            lun,
            PersistentReserveOutAction::Reserve,
            kind as u8,
            keys(key, 0),
        )
    }

    /// RELEASE.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn release(&mut self, lun: Lun, key: u64, kind: ReservationType) -> Result<(), Error> {
        self.basic(
            lun,
            PersistentReserveOutAction::Release,
            kind as u8,
            keys(key, 0),
        )
    }

    /// CLEAR.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn clear(&mut self, lun: Lun, key: u64) -> Result<(), Error> {
        self.basic(lun, PersistentReserveOutAction::Clear, 0, keys(key, 0))
    }

    /// PREEMPT: removes the registrations with key `victim`.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn preempt(
        &mut self,
        lun: Lun,
        key: u64,
        victim: u64,
        kind: ReservationType,
    ) -> Result<(), Error> {
        self.basic(
            lun,
            PersistentReserveOutAction::Preempt,
            kind as u8,
            keys(key, victim),
        )
    }

    /// PREEMPT AND ABORT: removes the registrations with key `victim` and aborts their tasks.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn preempt_and_abort(
        &mut self,
        lun: Lun,
        key: u64,
        victim: u64,
        kind: ReservationType,
    ) -> Result<(), Error> {
        let action = PersistentReserveOutAction::PreemptAndAbort;
        self.basic(lun, action, kind as u8, keys(key, victim))
    }

    /// REGISTER AND MOVE.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn register_and_move(
        &mut self,
        lun: Lun,
        kind: ReservationType,
        parameters: MoveParameters,
    ) -> Result<(), Error> {
        let action = PersistentReserveOutAction::RegisterAndMove;
        self.persistent_reserve_out(
            lun,
            action,
            kind as u8,
            OutParameters::RegisterAndMove(parameters),
        )
    }

    fn persistent_reserve_in(
        &mut self,
        lun: Lun,
        action: PersistentReserveInAction,
    ) -> Result<BytesMut, Error> {
        const ALLOCATION_LENGTH: u16 = u16::MAX;
        let cdb = PersistentReserveIn {
            action,
            allocation_length: ALLOCATION_LENGTH,
        };
        let cdb = Cdb::PersistentReserveIn(cdb);
        self.run(lun, cdb, Bytes::new(), ALLOCATION_LENGTH.into())
    }

    /// READ KEYS: generation and keys, as many as fit into 64 KiB.
    ///
    /// # Errors
    /// As [`Session::command`], and [`Error::Parse`].
    pub fn read_keys(&mut self, lun: Lun) -> Result<(u32, Vec<u64>), Error> {
        let data = self.persistent_reserve_in(lun, PersistentReserveInAction::ReadKeys)?;
        Ok(scsi::pr::parse_keys(&data)?)
    }

    /// READ RESERVATION: generation and reservation.
    ///
    /// # Errors
    /// As [`Session::command`], and [`Error::Parse`].
    pub fn read_reservation(
        &mut self,
        lun: Lun,
    ) -> Result<(u32, Option<ReservationDescriptor>), Error> {
        let data = self.persistent_reserve_in(lun, PersistentReserveInAction::ReadReservation)?;
        Ok(scsi::pr::parse_reservation(&data)?)
    }

    /// REPORT CAPABILITIES.
    ///
    /// # Errors
    /// As [`Session::command`], and [`Error::Parse`].
    pub fn report_capabilities(&mut self, lun: Lun) -> Result<Capabilities, Error> {
        let data =
            self.persistent_reserve_in(lun, PersistentReserveInAction::ReportCapabilities)?;
        Ok(Capabilities::parse(&data)?)
    }

    /// READ FULL STATUS: generation and registrants, as many as fit into 64 KiB.
    ///
    /// # Errors
    /// As [`Session::command`], and [`Error::Parse`].
    pub fn read_full_status(&mut self, lun: Lun) -> Result<(u32, Vec<FullStatus>), Error> {
        let data = self.persistent_reserve_in(lun, PersistentReserveInAction::ReadFullStatus)?;
        Ok(scsi::pr::parse_full_status(&data)?)
    }
}
