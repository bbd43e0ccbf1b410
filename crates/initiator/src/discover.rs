//! Discovery.

use std::net::SocketAddr;

use iscsi::initiator::{Chap, Config, DiscoveredTarget};

use crate::error::Error;
use crate::session::Session;

/// Asks a portal for all its targets, in a discovery session of its own (RFC 7143 4.3, Appendix C).
///
/// # Errors
/// The portal cannot be reached, or refuses.
pub fn discover(
    portal: SocketAddr,
    initiator_name: &str,
    isid: [u8; 6],
    chap: Option<Chap>,
) -> Result<Vec<DiscoveredTarget>, Error> {
    let mut config = Config::new(initiator_name, isid, iscsi::initiator::Session::Discovery);
    config.chap = chap;
    let mut session = Session::connect(portal, config)?;
    let targets = session.send_targets("All")?;
    session.logout()?;
    Ok(targets)
}
