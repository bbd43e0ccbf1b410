//! What may be asked over the network, and by whom.

use crate::control::protocol::Request;
use crate::failure::Failure;
use crate::network::role::{Client, Role};

/// Whether a client may ask for this.
pub(super) fn permits(client: &Client, request: &Request) -> Result<(), Failure> {
    match request {
        Request::DomainShow { name } => client.may(Role::Fence, Some(name)),
        Request::MemberList { domain }
        | Request::Fence { domain, .. }
        | Request::Unfence { domain, .. } => client.may(Role::Fence, Some(domain)),
        Request::Quorum { name, .. } => client.may(Role::Quorum, Some(name)),
        _ => Err(Failure::refused(
            "this cannot be asked over the network: use the command line on the head itself",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(role: Role, domain: Option<&str>) -> Client {
        Client {
            name: "x".into(),
            role,
            domain: domain.map(str::to_owned),
        }
    }

    #[test]
    fn each_role_has_its_requests_and_nobody_the_others() {
        let fence = Request::Unfence {
            domain: "prod".into(),
            member: "a".into(),
        };
        let quorum = Request::Quorum {
            name: "prod".into(),
            request: fencing::QuorumRequest::Read,
        };
        let table = [
            (client(Role::Fence, None), true, false),
            (client(Role::Fence, Some("prod")), true, false),
            (client(Role::Fence, Some("test")), false, false),
            (client(Role::Quorum, None), false, true),
            (client(Role::Quorum, Some("prod")), false, true),
            (client(Role::Quorum, Some("test")), false, false),
        ];
        for (client, may_fence, may_vote) in table {
            assert_eq!(permits(&client, &fence).is_ok(), may_fence, "{client:?}");
            assert_eq!(permits(&client, &quorum).is_ok(), may_vote, "{client:?}");
            for never in [Request::Status, Request::VolumeList, Request::DomainList] {
                assert!(permits(&client, &never).is_err());
            }
        }
    }
}
