//! PERSISTENT RESERVE OUT parameter lists (SPC-4 6.16.3, 6.16.4).

use super::transport_id::TransportId;
use crate::cdb::PersistentReserveOutAction;
use crate::error::ParameterListError;
use crate::wire::{flag, length_u32};

/// Length of the list without TransportIDs.
const BASIC_BYTES: usize = 24;

/// The list of every service action but REGISTER AND MOVE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BasicParameters {
    /// RESERVATION KEY.
    pub reservation_key: u64,
    /// SERVICE ACTION RESERVATION KEY.
    pub service_action_reservation_key: u64,
    /// SPEC_I_PT: `transport_ids` are to be registered as well; only with REGISTER.
    pub spec_i_pt: bool,
    /// ALL_TG_PT: register on every target port.
    pub all_tg_pt: bool,
    /// APTPL: keep the state through power loss.
    pub aptpl: bool,
    /// The TransportID list; empty unless `spec_i_pt`.
    pub transport_ids: Vec<TransportId>,
}

/// The list of REGISTER AND MOVE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveParameters {
    /// RESERVATION KEY: that of the sender.
    pub reservation_key: u64,
    /// SERVICE ACTION RESERVATION KEY: to be registered for the nexus that the reservation moves to.
    pub service_action_reservation_key: u64,
    /// UNREG: unregister the sender.
    pub unregister: bool,
    /// APTPL.
    pub aptpl: bool,
    /// RELATIVE TARGET PORT IDENTIFIER of the nexus that the reservation moves to.
    pub relative_target_port: u16,
    /// Initiator port of the nexus that the reservation moves to.
    pub transport_id: TransportId,
}

/// A parsed parameter list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutParameters {
    /// Every service action but REGISTER AND MOVE.
    Basic(BasicParameters),
    /// REGISTER AND MOVE.
    RegisterAndMove(MoveParameters),
}

impl OutParameters {
    /// Reads the parameter list of a service action; `data` is as long as PARAMETER LIST LENGTH says.
    ///
    /// # Errors
    /// [`ParameterListError::Length`]: not 24 bytes without SPEC_I_PT, or lengths that contradict each other.
    /// [`ParameterListError::InvalidField`]: reserved bits, SPEC_I_PT with another service action than REGISTER, or a
    /// malformed TransportID.
    pub fn parse(
        action: PersistentReserveOutAction,
        data: &[u8],
    ) -> Result<OutParameters, ParameterListError> {
        if action == PersistentReserveOutAction::RegisterAndMove {
            return parse_move(data).map(OutParameters::RegisterAndMove);
        }
        parse_basic(action, data).map(OutParameters::Basic)
    }

    /// Builds the parameter list.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            OutParameters::Basic(basic) => basic.encode(),
            OutParameters::RegisterAndMove(parameters) => parameters.encode(),
        }
    }
}

fn key_at(data: &[u8; BASIC_BYTES], at: usize) -> u64 {
    data[at..at + 8]
        .iter()
        .fold(0, |key, &byte| key << 8 | u64::from(byte))
}

fn parse_basic(
    action: PersistentReserveOutAction,
    data: &[u8],
) -> Result<BasicParameters, ParameterListError> {
    let (head, rest) = data
        .split_first_chunk::<BASIC_BYTES>()
        .ok_or(ParameterListError::Length)?;
    let flags = head[20];
    let spec_i_pt = flags & 0x08 != 0;
    if flags & 0xf0 != 0 {
        return Err(ParameterListError::field(20, Some(7)));
    }
    if flags & 0x02 != 0 {
        return Err(ParameterListError::field(20, Some(1)));
    }
    if spec_i_pt && action != PersistentReserveOutAction::Register {
        return Err(ParameterListError::field(20, Some(3)));
    }
    let transport_ids = if spec_i_pt {
        let (length, list) = rest
            .split_first_chunk::<4>()
            .ok_or(ParameterListError::Length)?;
        if usize::try_from(u32::from_be_bytes(*length)) != Ok(list.len()) {
            return Err(ParameterListError::Length);
        }
        TransportId::parse_list(list, BASIC_BYTES + 4)?
    } else if rest.is_empty() {
        Vec::new()
    } else {
        return Err(ParameterListError::Length);
    };
    Ok(BasicParameters {
        reservation_key: key_at(head, 0),
        service_action_reservation_key: key_at(head, 8),
        spec_i_pt,
        all_tg_pt: flags & 0x04 != 0,
        aptpl: flags & 0x01 != 0,
        transport_ids,
    })
}

fn parse_move(data: &[u8]) -> Result<MoveParameters, ParameterListError> {
    let (head, list) = data
        .split_first_chunk::<BASIC_BYTES>()
        .ok_or(ParameterListError::Length)?;
    if head[16] != 0 {
        return Err(ParameterListError::field(16, None));
    }
    let flags = head[17];
    if flags & 0xfc != 0 {
        return Err(ParameterListError::field(17, Some(7)));
    }
    let length = u32::from_be_bytes([head[20], head[21], head[22], head[23]]);
    if usize::try_from(length) != Ok(list.len()) {
        return Err(ParameterListError::Length);
    }
    let (transport_id, used) = TransportId::parse(list, BASIC_BYTES)?;
    if used != list.len() {
        return Err(ParameterListError::Length);
    }
    Ok(MoveParameters {
        reservation_key: key_at(head, 0),
        service_action_reservation_key: key_at(head, 8),
        unregister: flags & 0x02 != 0,
        aptpl: flags & 0x01 != 0,
        relative_target_port: u16::from_be_bytes([head[18], head[19]]),
        transport_id,
    })
}

impl BasicParameters {
    /// Builds the list: 24 bytes, and the TransportID list with `spec_i_pt`.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(BASIC_BYTES);
        data.extend(self.reservation_key.to_be_bytes());
        data.extend(self.service_action_reservation_key.to_be_bytes());
        data.extend([0; 4]);
        data.push(flag(self.spec_i_pt, 3) | flag(self.all_tg_pt, 2) | flag(self.aptpl, 0));
        data.extend([0; 3]);
        if self.spec_i_pt {
            let list: Vec<u8> = self
                .transport_ids
                .iter()
                .flat_map(TransportId::encode)
                .collect();
            data.extend(length_u32(list.len()).to_be_bytes());
            data.extend(list);
        }
        data
    }
}

impl MoveParameters {
    /// Builds the list: 24 bytes and the TransportID.
    pub fn encode(&self) -> Vec<u8> {
        let id = self.transport_id.encode();
        let mut data = Vec::with_capacity(BASIC_BYTES + id.len());
        data.extend(self.reservation_key.to_be_bytes());
        data.extend(self.service_action_reservation_key.to_be_bytes());
        data.extend([0, flag(self.unregister, 1) | flag(self.aptpl, 0)]);
        data.extend(self.relative_target_port.to_be_bytes());
        data.extend(length_u32(id.len()).to_be_bytes());
        data.extend(id);
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PersistentReserveOutAction as A;

    fn id(name: &str) -> TransportId {
        TransportId {
            name: name.into(),
            isid: Some([1, 2, 3, 4, 5, 6]),
        }
    }

    fn register() -> BasicParameters {
        BasicParameters {
            reservation_key: 0x0102_0304_0506_0708,
            service_action_reservation_key: 0x1112_1314_1516_1718,
            spec_i_pt: true,
            all_tg_pt: true,
            aptpl: true,
            transport_ids: vec![
                id("iqn.a"),
                TransportId {
                    name: "eui.02004567a425678d".into(),
                    isid: None,
                },
            ],
        }
    }

    #[test]
    fn register_round_trips_with_transport_ids() {
        let data = register().encode();
        assert_eq!(data[20], 0x0d);
        assert_eq!(
            OutParameters::parse(A::Register, &data),
            Ok(OutParameters::Basic(register()))
        );
        let plain = BasicParameters {
            spec_i_pt: false,
            transport_ids: vec![],
            ..register()
        };
        assert_eq!(plain.encode().len(), 24);
        assert_eq!(
            OutParameters::parse(A::Preempt, &plain.encode()),
            Ok(OutParameters::Basic(plain))
        );
    }

    #[test]
    fn lists_of_the_wrong_length_are_length_errors() {
        let plain = BasicParameters {
            spec_i_pt: false,
            transport_ids: vec![],
            ..register()
        }
        .encode();
        let mut long = plain.clone();
        long.push(0);
        for action in [A::Register, A::Reserve, A::Clear, A::ReplaceLostReservation] {
            assert_eq!(
                OutParameters::parse(action, &long),
                Err(ParameterListError::Length)
            );
            assert_eq!(
                OutParameters::parse(action, &plain[..23]),
                Err(ParameterListError::Length)
            );
        }
        let data = register().encode();
        for cut in 0..data.len() {
            assert_eq!(
                OutParameters::parse(A::Register, &data[..cut]),
                Err(ParameterListError::Length),
                "{cut}"
            );
        }
    }

    #[test]
    fn spec_i_pt_belongs_to_register() {
        for action in [A::RegisterAndIgnoreExistingKey, A::Reserve, A::Preempt] {
            assert_eq!(
                OutParameters::parse(action, &register().encode()),
                Err(ParameterListError::field(20, Some(3)))
            );
        }
    }

    #[test]
    fn a_bad_transport_id_is_pointed_at() {
        let mut data = register().encode();
        data[28] = 0x46;
        assert_eq!(
            OutParameters::parse(A::Register, &data),
            Err(ParameterListError::field(28, Some(3)))
        );
    }

    #[test]
    fn register_and_move_round_trips_and_is_checked() {
        let parameters = MoveParameters {
            reservation_key: 1,
            service_action_reservation_key: 2,
            unregister: true,
            aptpl: false,
            relative_target_port: 0x0203,
            transport_id: id("iqn.b:c"),
        };
        let data = parameters.encode();
        assert_eq!(data[16..20], [0, 2, 2, 3]);
        assert_eq!(
            OutParameters::parse(A::RegisterAndMove, &data),
            Ok(OutParameters::RegisterAndMove(parameters.clone()))
        );
        for cut in 0..data.len() {
            assert_eq!(
                OutParameters::parse(A::RegisterAndMove, &data[..cut]),
                Err(ParameterListError::Length)
            );
        }
        let mut two = data.clone();
        two.extend(id("iqn.d").encode());
        two[23] = (two.len() - 24) as u8;
        assert_eq!(
            OutParameters::parse(A::RegisterAndMove, &two),
            Err(ParameterListError::Length)
        );
        let mut reserved = data;
        reserved[17] |= 0x04;
        assert_eq!(
            OutParameters::parse(A::RegisterAndMove, &reserved),
            Err(ParameterListError::field(17, Some(7)))
        );
    }
}
