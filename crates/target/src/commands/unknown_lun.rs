//! Commands to a LUN that names nothing for the initiator (SPC-4 6.6.1, 6.33, 6.39; SAM-5 5.13).

use reservation::Nexus;
use scsi::cdb::Cdb;
use scsi::inquiry::PeripheralQualifier;
use scsi::sense::SenseFormat;
use scsi::{Sense, truncated};
use volume::block_device::BlockDevice;

use super::inquiry::standard;
use super::report::luns_for;
use crate::response::{Failure, Response};
use crate::target::Target;
use crate::task::Request;

/// INQUIRY, REPORT LUNS and REQUEST SENSE are answered, everything else is refused.
pub(crate) fn respond<D: BlockDevice>(
    target: &Target<D>,
    nexus: &Nexus,
    request: &Request<'_>,
) -> Response {
    let result = match Cdb::decode(request.cdb) {
        Ok(Cdb::Inquiry(command)) if command.vpd_page.is_none() => {
            let data = standard(&target.shared, PeripheralQualifier::NotSupported).encode();
            Ok(truncated(data, command.allocation_length.into()))
        }
        Ok(Cdb::ReportLuns(command)) => luns_for(target, nexus, &command),
        Ok(Cdb::RequestSense(command)) => {
            let sense = Sense::logical_unit_not_supported();
            let data = sense.encode(SenseFormat::from_bit(command.descriptor));
            Ok(truncated(data, command.allocation_length.into()))
        }
        _ => Err(Failure::from(Sense::logical_unit_not_supported())),
    };
    match result {
        Ok(data) => Response::data(data),
        Err(failure) => failure.into_response(SenseFormat::Fixed),
    }
}
