//! Why a command was not carried out.

/// A command that changed nothing, and what to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reject {
    /// RESERVATION CONFLICT status.
    #[error("reservation conflict")]
    ReservationConflict,
    /// ILLEGAL REQUEST, INVALID FIELD IN CDB (24h/00h).
    #[error("invalid field in CDB: {0:?}")]
    InvalidFieldInCdb(CdbField),
    /// ILLEGAL REQUEST, INVALID FIELD IN PARAMETER LIST (26h/00h).
    #[error("invalid field in parameter list: {0:?}")]
    InvalidFieldInParameterList(ParameterField),
    /// ILLEGAL REQUEST, INVALID RELEASE OF PERSISTENT RESERVATION (26h/04h).
    #[error("invalid release of persistent reservation")]
    InvalidRelease,
    /// ILLEGAL REQUEST, INSUFFICIENT REGISTRATION RESOURCES (55h/04h).
    #[error("insufficient registration resources")]
    InsufficientRegistrationResources,
    /// DATA PROTECT, PERSISTENT RESERVATION INFORMATION LOST (44h/01h).
    #[error("persistent reservation information lost")]
    ReservationInformationLost,
}

/// Fields of the PERSISTENT RESERVE OUT CDB that can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CdbField {
    /// SERVICE ACTION: it makes no sense in this state.
    ServiceAction,
    /// SCOPE: not LU_SCOPE.
    Scope,
    /// TYPE: reserved or obsolete.
    Type,
}

/// Fields of the PERSISTENT RESERVE OUT parameter lists that can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParameterField {
    /// RESERVATION KEY.
    ReservationKey,
    /// SERVICE ACTION RESERVATION KEY.
    ServiceActionReservationKey,
    /// SPEC_I_PT, basic list.
    SpecifyInitiatorPorts,
    /// ALL_TG_PT, basic list.
    AllTargetPorts,
    /// A TransportID of the additional parameter data, basic list.
    SpecifiedTransportId,
    /// RELATIVE TARGET PORT IDENTIFIER of REGISTER AND MOVE.
    RelativeTargetPort,
    /// TransportID of REGISTER AND MOVE.
    DestinationTransportId,
}

/// CHECK CONDITION in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// Sense key: 5h ILLEGAL REQUEST or 7h DATA PROTECT.
    pub sense_key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
    /// For the sense-key specific field pointer.
    pub field: Option<FieldPointer>,
}

/// Where the offending field is (SPC-4 4.5.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldPointer {
    /// C/D bit: in the CDB, else in the parameter list.
    pub in_cdb: bool,
    /// FIELD POINTER: byte of the field's most significant part.
    pub byte: u16,
    /// BIT POINTER: most significant bit of the field, when it is not the whole byte.
    pub bit: Option<u8>,
}

impl Reject {
    /// The sense data of a CHECK CONDITION; `None` means RESERVATION CONFLICT status, which has none.
    pub const fn sense(self) -> Option<Sense> {
        let (sense_key, asc, ascq, field) = match self {
            Self::ReservationConflict => return None,
            Self::InvalidFieldInCdb(field) => (0x5, 0x24, 0x00, Some(field.pointer())),
            Self::InvalidFieldInParameterList(field) => (0x5, 0x26, 0x00, Some(field.pointer())),
            Self::InvalidRelease => (0x5, 0x26, 0x04, None),
            Self::InsufficientRegistrationResources => (0x5, 0x55, 0x04, None),
            Self::ReservationInformationLost => (0x7, 0x44, 0x01, None),
        };
        Some(Sense {
            sense_key,
            asc,
            ascq,
            field,
        })
    }
}

impl CdbField {
    const fn pointer(self) -> FieldPointer {
        let (byte, bit) = match self {
            Self::ServiceAction => (1, 4),
            Self::Scope => (2, 7),
            Self::Type => (2, 3),
        };
        FieldPointer {
            in_cdb: true,
            byte,
            bit: Some(bit),
        }
    }
}

impl ParameterField {
    const fn pointer(self) -> FieldPointer {
        let (byte, bit) = match self {
            Self::ReservationKey => (0, None),
            Self::ServiceActionReservationKey => (8, None),
            Self::SpecifyInitiatorPorts => (20, Some(3)),
            Self::AllTargetPorts => (20, Some(2)),
            Self::SpecifiedTransportId => (28, None),
            Self::RelativeTargetPort => (18, None),
            Self::DestinationTransportId => (24, None),
        };
        FieldPointer {
            in_cdb: false,
            byte,
            bit,
        }
    }
}
