//! From requests to the operations that carry them out.

use super::{Operations, device, domain, volume};
use std::time::Duration;

use crate::control::protocol::{Answer, Request};
use crate::control::server::{Handler, Sink};
use crate::events::Operator;
use crate::failure::Failure;

impl Handler for Operations {
    fn handle(
        &self,
        request: Request,
        operator: &Operator,
        sink: &mut dyn Sink,
    ) -> Result<Answer, Failure> {
        match request {
            Request::Status => Ok(Answer::Status(self.status())),
            Request::DeviceAdd {
                name,
                path,
                size_bytes,
                direct,
                force,
            } => {
                let how = device::Joining { direct, force };
                self.device_add(&name, path, size_bytes, how, operator)
                    .map(Answer::Device)
            }
            Request::DeviceList => self.device_list().map(Answer::Devices),
            Request::DeviceShow { name } => self.device_show(&name).map(Answer::Device),
            Request::DeviceRemove { name } => {
                self.device_remove(&name, operator).map(|()| Answer::Done)
            }
            Request::VolumeCreate {
                name,
                size_bytes,
                on,
                keys_on,
                block_size_bytes,
                persist_always,
                shape,
            } => {
                let wanted = volume::Wanted {
                    name,
                    size_bytes,
                    on,
                    keys_on,
                    block_size_bytes,
                    persist_always,
                    shape,
                };
                self.volume_create(wanted, operator).map(Answer::Volume)
            }
            Request::DeviceEvacuate {
                name,
                rate_bytes_per_second,
            } => self
                .device_evacuate(&name, rate_bytes_per_second, operator)
                .map(Answer::Jobs),
            Request::DeviceReplace {
                old,
                new,
                rate_bytes_per_second,
            } => self
                .device_replace(&old, &new, rate_bytes_per_second, operator)
                .map(Answer::Jobs),
            Request::DeviceFail { name, force } => {
                self.device_fail(&name, force, operator).map(Answer::Device)
            }
            Request::DeviceOnline { name, path } => self
                .device_online(&name, path, operator)
                .map(Answer::Device),
            Request::PoolShow => self.pool_show().map(Answer::Pool),
            Request::PoolImport { paths, direct } => {
                self.pool_import(paths, direct, operator).map(Answer::Pool)
            }
            Request::PoolExport { force } => self.pool_export(force, operator).map(Answer::Pool),
            Request::VolumeRename { name, new_name } => self
                .volume_rename(&name, &new_name, operator)
                .map(Answer::Volume),
            Request::VolumeAddMirror {
                name,
                on,
                rate_bytes_per_second,
            } => self
                .volume_add_mirror(&name, on, rate_bytes_per_second, operator)
                .map(Answer::Jobs),
            Request::VolumeRemoveMirror { name, plex, on } => self
                .volume_remove_mirror(&name, plex, on, operator)
                .map(Answer::Volume),
            Request::VolumeMigrate {
                name,
                to,
                keys_to,
                shape,
                rate_bytes_per_second: rate,
            } => self
                .volume_migrate(&name, to, keys_to, &shape, rate, operator)
                .map(Answer::Jobs),
            Request::VolumeVerify { name, repair } => self
                .volume_verify(&name, repair, operator, sink)
                .map(Answer::Verified),
            Request::JobList => self.job_list().map(Answer::Jobs),
            Request::JobShow { volume } => self.job_show(&volume).map(Answer::Job),
            Request::JobControl { volume, action } => {
                self.job_control(&volume, action, operator).map(Answer::Job)
            }
            Request::JobWait { jobs } => self.job_wait(&jobs, sink).map(Answer::JobEnds),
            Request::KeysRecoverShow { volume, from } => self
                .keys_recover_show(&volume, &from)
                .map(Answer::KeysRecovery),
            Request::KeysRecover {
                volume,
                from,
                proof,
                clear,
                until,
            } => self
                .keys_recover(&volume, &from, proof, (!clear).then_some(until), operator)
                .map(Answer::Keys),
            Request::KeysClearLost { volume } => {
                self.keys_clear_lost(&volume, operator).map(Answer::Keys)
            }
            Request::VolumeList => self.volume_list().map(Answer::Volumes),
            Request::VolumeShow { name } => self.volume_show(&name).map(Answer::Volume),
            Request::VolumeDelete { name, force } => self
                .volume_delete(&name, force, operator)
                .map(|()| Answer::Done),
            Request::VolumeGrow { name, growth } => self
                .volume_grow(&name, growth, operator)
                .map(Answer::Volume),
            Request::VolumeMap { name, offset_bytes } => {
                self.volume_map(&name, offset_bytes).map(Answer::Map)
            }
            Request::Grant {
                volume,
                initiator,
                access,
            } => self
                .grant(&volume, &initiator, access, operator)
                .map(Answer::Grant),
            Request::Grants { volume } => self.grants(&volume).map(Answer::Grants),
            Request::Keys { volume } => self.keys(&volume).map(Answer::Keys),
            Request::SessionList => Ok(Answer::Sessions(self.sessions())),
            Request::SessionDrop { id } => self.session_drop(id, operator).map(|()| Answer::Done),
            Request::DomainCreate {
                name,
                volumes,
                quorum,
                quorum_votes,
                prefer,
                window_ms,
                mailbox_on,
            } => {
                let wanted = domain::Wanted {
                    name,
                    volumes,
                    quorum,
                    quorum_votes,
                    prefer,
                    window_ms,
                    mailbox_on,
                };
                self.domain_create(wanted, operator).map(Answer::Domain)
            }
            Request::DomainList => self.domain_list().map(Answer::Domains),
            Request::DomainShow { name } => self.domain_show(&name).map(Answer::Domain),
            Request::DomainDelete { name } => {
                self.domain_delete(&name, operator).map(|()| Answer::Done)
            }
            Request::DomainVolumeAdd { domain, volume } => self
                .domain_volume_add(&domain, &volume, operator)
                .map(Answer::Domain),
            Request::DomainVolumeRemove { domain, volume } => self
                .domain_volume_remove(&domain, &volume, operator)
                .map(Answer::Domain),
            Request::MemberAdd {
                domain,
                member,
                initiators,
                votes,
                methods,
            } => {
                let joining = domain::Joining {
                    member,
                    initiators,
                    votes,
                    methods,
                };
                self.member_add(&domain, joining, operator)
                    .map(Answer::Domain)
            }
            Request::MemberRemove { domain, member } => self
                .member_remove(&domain, &member, operator)
                .map(Answer::Domain),
            Request::MemberList { domain } => self.member_list(&domain).map(Answer::Members),
            Request::DomainRace {
                domain,
                member,
                with,
                id,
                epoch,
            } => {
                let racing = domain::Racing {
                    member,
                    with,
                    id,
                    epoch,
                };
                self.domain_race(&domain, racing, operator, sink)
                    .map(Answer::Race)
            }
            Request::Fence {
                domain,
                member,
                methods,
                wait_ms,
            } => {
                let patience = Duration::from_millis(wait_ms);
                self.fence(&domain, &member, methods, patience, operator, sink)
                    .map(Answer::Fence)
            }
            Request::Unfence { domain, member } => {
                self.unfence(&domain, &member, operator).map(Answer::Domain)
            }
            Request::Quorum { name, request } => self.quorum(&name, &request).map(Answer::Quorum),
            Request::Events { since, follow } => {
                self.events(since, follow, sink).map(|()| Answer::Done)
            }
        }
    }
}
