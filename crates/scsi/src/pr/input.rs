//! PERSISTENT RESERVE IN parameter data (SPC-4 6.15.2 to 6.15.5).
//!
//! ADDITIONAL LENGTH always counts everything there is; cutting to the allocation length is the caller's last step
//! ([`crate::truncated`]) and does not change it.

use super::transport_id::TransportId;
use crate::error::ParseError;
use crate::wire::{View, flag, length_u32};

fn with_header(generation: u32, body: &[u8]) -> Vec<u8> {
    [
        &generation.to_be_bytes()[..],
        &length_u32(body.len()).to_be_bytes(),
        body,
    ]
    .concat()
}

/// The part of the data behind the header that ADDITIONAL LENGTH and the data both cover.
fn body<'a>(view: View<'a>) -> Result<(u32, View<'a>), ParseError> {
    let generation = view.u32(0)?;
    let length = usize::try_from(view.u32(4)?).unwrap_or(usize::MAX);
    let rest = &view.bytes[8..];
    Ok((
        generation,
        View::new(&rest[..length.min(rest.len())], view.what),
    ))
}

/// Builds READ KEYS data.
pub fn encode_keys(generation: u32, keys: &[u64]) -> Vec<u8> {
    let body: Vec<u8> = keys.iter().flat_map(|key| key.to_be_bytes()).collect();
    with_header(generation, &body)
}

/// Reads READ KEYS data: PRGENERATION and the keys that are there.
///
/// # Errors
/// The header is cut short.
pub fn parse_keys(data: &[u8]) -> Result<(u32, Vec<u64>), ParseError> {
    let (generation, list) = body(View::new(data, "READ KEYS data"))?;
    let (keys, _cut) = list.bytes.as_chunks::<8>();
    Ok((
        generation,
        keys.iter().map(|key| u64::from_be_bytes(*key)).collect(),
    ))
}

/// What READ RESERVATION tells of the reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationDescriptor {
    /// RESERVATION KEY of the holder; zero for the all-registrants types.
    pub key: u64,
    /// SCOPE, 0 to 15.
    pub scope: u8,
    /// TYPE, 0 to 15.
    pub kind: u8,
}

/// Builds READ RESERVATION data.
pub fn encode_reservation(generation: u32, reservation: Option<ReservationDescriptor>) -> Vec<u8> {
    let mut body = Vec::with_capacity(16);
    if let Some(reservation) = reservation {
        body.extend(reservation.key.to_be_bytes());
        body.extend([
            0,
            0,
            0,
            0,
            0,
            scope_and_type(reservation.scope, reservation.kind),
            0,
            0,
        ]);
    }
    with_header(generation, &body)
}

/// Reads READ RESERVATION data.
///
/// # Errors
/// The data ends inside the header or the descriptor.
pub fn parse_reservation(data: &[u8]) -> Result<(u32, Option<ReservationDescriptor>), ParseError> {
    let view = View::new(data, "READ RESERVATION data");
    let (generation, descriptor) = body(view)?;
    if view.u32(4)? == 0 {
        return Ok((generation, None));
    }
    let packed = descriptor.u8(13)?;
    let reservation = ReservationDescriptor {
        key: descriptor.u64(0)?,
        scope: packed >> 4,
        kind: packed & 0x0f,
    };
    Ok((generation, Some(reservation)))
}

fn scope_and_type(scope: u8, kind: u8) -> u8 {
    scope << 4 | kind & 0x0f
}

/// REPORT CAPABILITIES data (SPC-4 6.15.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// RLR_C: REPLACE LOST RESERVATION is supported.
    pub replace_lost_reservation: bool,
    /// CRH: RESERVE and RELEASE are handled compatibly (SPC-4 5.12.3).
    pub compatible_reservation_handling: bool,
    /// SIP_C: SPEC_I_PT is supported.
    pub specify_initiator_ports: bool,
    /// ATP_C: ALL_TG_PT is supported.
    pub all_target_ports: bool,
    /// PTPL_C: APTPL is supported.
    pub persist_through_power_loss: bool,
    /// ALLOW COMMANDS, 0 to 7: which further commands are allowed through reservations.
    pub allow_commands: u8,
    /// PTPL_A: persistence through power loss is active now.
    pub persist_through_power_loss_active: bool,
    /// PERSISTENT RESERVATION TYPE MASK: type codes that are supported, from 1, 3, 5, 6, 7, 8; TMV is one.
    pub types: [bool; 9],
}

/// Type code, byte and bit in the type mask.
const TYPE_BITS: [(usize, usize, u8); 6] = [
    (1, 4, 1),
    (3, 4, 3),
    (5, 4, 5),
    (6, 4, 6),
    (7, 4, 7),
    (8, 5, 0),
];

impl Capabilities {
    /// `types` with all six types.
    pub const ALL_TYPES: [bool; 9] = [false, true, false, true, false, true, true, true, true];

    /// Builds the 8 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = vec![0; 8];
        data[1] = 8;
        data[2] = flag(self.replace_lost_reservation, 7)
            | flag(self.compatible_reservation_handling, 4)
            | flag(self.specify_initiator_ports, 3)
            | flag(self.all_target_ports, 2)
            | flag(self.persist_through_power_loss, 0);
        data[3] = 0x80
            | (self.allow_commands & 0x07) << 4
            | flag(self.persist_through_power_loss_active, 0);
        for (kind, byte, bit) in TYPE_BITS {
            data[byte] |= flag(self.types[kind], bit);
        }
        data
    }

    /// Reads the data; without TMV every type counts as supported.
    ///
    /// # Errors
    /// The data is shorter than 8 bytes.
    pub fn parse(data: &[u8]) -> Result<Capabilities, ParseError> {
        let view = View::new(data, "REPORT CAPABILITIES data");
        view.slice(0, 8)?;
        let (first, second) = (view.u8(2)?, view.u8(3)?);
        let mut types = Capabilities::ALL_TYPES;
        if second & 0x80 != 0 {
            for (kind, byte, bit) in TYPE_BITS {
                types[kind] = view.u8(byte)? >> bit & 1 != 0;
            }
        }
        Ok(Capabilities {
            replace_lost_reservation: first & 0x80 != 0,
            compatible_reservation_handling: first & 0x10 != 0,
            specify_initiator_ports: first & 0x08 != 0,
            all_target_ports: first & 0x04 != 0,
            persist_through_power_loss: first & 0x01 != 0,
            allow_commands: second >> 4 & 0x07,
            persist_through_power_loss_active: second & 0x01 != 0,
            types,
        })
    }
}

/// One registrant in READ FULL STATUS data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullStatus {
    /// RESERVATION KEY.
    pub key: u64,
    /// ALL_TG_PT.
    pub all_tg_pt: bool,
    /// R_HOLDER with SCOPE and TYPE: the registrant holds the reservation; zeroes on the wire otherwise.
    pub holder: Option<(u8, u8)>,
    /// RELATIVE TARGET PORT IDENTIFIER; not meaningful with `all_tg_pt`.
    pub relative_target_port: u16,
    /// The initiator port.
    pub transport_id: TransportId,
}

/// Builds READ FULL STATUS data.
pub fn encode_full_status(generation: u32, registrants: &[FullStatus]) -> Vec<u8> {
    let mut body = Vec::new();
    for registrant in registrants {
        let id = registrant.transport_id.encode();
        let (scope, kind) = registrant.holder.unwrap_or((0, 0));
        body.extend(registrant.key.to_be_bytes());
        body.extend([0; 4]);
        body.push(flag(registrant.all_tg_pt, 1) | flag(registrant.holder.is_some(), 0));
        body.push(scope_and_type(scope, kind));
        body.extend([0; 4]);
        body.extend(registrant.relative_target_port.to_be_bytes());
        body.extend(length_u32(id.len()).to_be_bytes());
        body.extend(id);
    }
    with_header(generation, &body)
}

/// Reads READ FULL STATUS data: PRGENERATION and the complete descriptors that are there.
///
/// # Errors
/// The header is cut short, or a complete descriptor holds a TransportID that is not a valid iSCSI one.
pub fn parse_full_status(data: &[u8]) -> Result<(u32, Vec<FullStatus>), ParseError> {
    let (generation, list) = body(View::new(data, "READ FULL STATUS data"))?;
    let mut registrants = Vec::new();
    let mut at = 0;
    while let Ok(head) = list.slice(at, 24) {
        let head = View::new(head, list.what);
        let length = usize::try_from(head.u32(20)?).unwrap_or(usize::MAX);
        let Ok(id) = list.slice(at + 24, length) else {
            break;
        };
        let id_at = 8 + at + 24;
        let (transport_id, used) = TransportId::parse(id, 0).map_err(|_| list.invalid(id_at))?;
        if used != length {
            return Err(list.invalid(8 + at + 20));
        }
        let (flags, packed) = (head.u8(12)?, head.u8(13)?);
        registrants.push(FullStatus {
            key: head.u64(0)?,
            all_tg_pt: flags & 0x02 != 0,
            holder: (flags & 0x01 != 0).then_some((packed >> 4, packed & 0x0f)),
            relative_target_port: head.u16(18)?,
            transport_id,
        });
        at += 24 + length;
    }
    Ok((generation, registrants))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_survive_truncation() {
        let data = encode_keys(7, &[1, 0x0102_0304_0506_0708]);
        assert_eq!(data[..8], [0, 0, 0, 7, 0, 0, 0, 16]);
        assert_eq!(parse_keys(&data), Ok((7, vec![1, 0x0102_0304_0506_0708])));
        assert_eq!(parse_keys(&data[..23]), Ok((7, vec![1])));
        assert!(parse_keys(&data[..7]).is_err());
    }

    #[test]
    fn reservation_bytes_by_hand() {
        assert_eq!(encode_reservation(9, None), [0, 0, 0, 9, 0, 0, 0, 0]);
        let reservation = ReservationDescriptor {
            key: 0xab,
            scope: 0,
            kind: 5,
        };
        let data = encode_reservation(9, Some(reservation));
        assert_eq!(
            data,
            [
                0, 0, 0, 9, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0xab, 0, 0, 0, 0, 0, 5, 0, 0
            ]
        );
        assert_eq!(parse_reservation(&data), Ok((9, Some(reservation))));
        assert_eq!(parse_reservation(&data[..8]).ok(), None);
    }

    #[test]
    fn capabilities_bytes_by_hand() {
        let capabilities = Capabilities {
            replace_lost_reservation: true,
            compatible_reservation_handling: true,
            specify_initiator_ports: true,
            all_target_ports: true,
            persist_through_power_loss: true,
            allow_commands: 5,
            persist_through_power_loss_active: true,
            types: Capabilities::ALL_TYPES,
        };
        assert_eq!(capabilities.encode(), [0, 8, 0x9d, 0xd1, 0xea, 0x01, 0, 0]);
        assert_eq!(
            Capabilities::parse(&capabilities.encode()),
            Ok(capabilities)
        );
        assert!(Capabilities::parse(&capabilities.encode()[..7]).is_err());
    }

    #[test]
    fn full_status_round_trips_and_survives_truncation() {
        let transport_id = TransportId {
            name: "iqn.a:b".into(),
            isid: Some([0, 2, 0x3d, 0, 0, 1]),
        };
        let registrants = [
            FullStatus {
                key: 1,
                all_tg_pt: false,
                holder: Some((0, 6)),
                relative_target_port: 2,
                transport_id: transport_id.clone(),
            },
            FullStatus {
                key: 2,
                all_tg_pt: true,
                holder: None,
                relative_target_port: 0,
                transport_id,
            },
        ];
        let data = encode_full_status(3, &registrants);
        assert_eq!(data.len(), 8 + 2 * (24 + 32));
        assert_eq!(data[4..8], [0, 0, 0, 112]);
        assert_eq!(data[20..32], [0x01, 0x06, 0, 0, 0, 0, 0, 2, 0, 0, 0, 32]);
        assert_eq!(parse_full_status(&data), Ok((3, registrants.to_vec())));
        assert_eq!(
            parse_full_status(&data[..119]),
            Ok((3, registrants[..1].to_vec()))
        );
    }
}
