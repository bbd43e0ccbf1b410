//! The daemon: brings the pool up, serves its volumes, answers the control socket, and stops in order.

mod api;
mod audit;
mod chap;
mod device_list;
mod domains;
mod endings;
mod keeper;
mod notify;
mod operations;
mod patience;
mod pool;
mod portals;
mod rates;
mod refusals;
mod runtime;
mod state_dir;
mod witness;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reactor::{BackendChoice, FileDevice, Handle};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use target::{Target, TargetConfig};
use volume::Pool;

use crate::cli::output::Output;
use crate::cli::serve::{IoEngine, ServeArgs};
use crate::control::server::Server;
use crate::events::What;
use crate::events::writer::{EventLog, Limits};
use crate::failure::Failure;
use crate::iscsi::{PortalInfo, Service, ServiceConfig};
use crate::network::client::RemoteClient;
use crate::network::server::Server as ApiServer;
use audit::Audit;
use device_list::DeviceList;
use domains::Domains;
use endings::Endings;
use operations::Operations;

pub use audit::{isid_text, key_text, type_name};

/// Runs `make`'s future on a reactor and waits for its result. Not to be called on a reactor.
fn on_reactor<M, F>(reactor: &Handle, make: M) -> Result<F::Output, Failure>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future + 'static,
    F::Output: Send + 'static,
{
    reactor
        .spawn(make)
        .wait()
        .map_err(|error| Failure::failed(format!("the operation did not finish: {error}")))
}

/// Serves the pool of the state directory `state` until SIGTERM or SIGINT.
pub fn run(state: &Path, args: ServeArgs, output: Output) -> Result<(), Failure> {
    start_logging();
    if args.exit_with_parent {
        exit_with_parent()?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|error| Failure::failed(format!("signals cannot be handled: {error}")))?;
    let chap = args.chap_file.as_deref().map(chap::load).transpose()?;
    state_dir::prepare(state)?;
    let _lock = state_dir::StateLock::take(state)?;
    let (log, log_thread) = EventLog::start(state, Limits::default()).map_err(|error| {
        Failure::failed(format!(
            "the event log in {} cannot be opened: {error}",
            state.display()
        ))
    })?;
    let result = serve(state, &args, chap, output, &log, &mut signals);
    if let Err(failure) = &result {
        log.record(What::DaemonStopped {
            reason: failure.to_string(),
        });
    }
    log_thread.stop();
    // Who follows the events hears of the end.
    result.map(|server| server.settle(Duration::from_secs(1)))
}

/// Serves until a signal; gives the control server, which is closed, but may have answers under way.
fn serve(
    state: &Path,
    args: &ServeArgs,
    chap: Option<::iscsi::target::ChapConfig>,
    output: Output,
    log: &EventLog,
    signals: &mut Signals,
) -> Result<Server, Failure> {
    // What is wrong with the files is said before anything is served.
    let identity = args.identity();
    let remote = identity.as_ref().map(RemoteClient::new).transpose()?;
    let (data, control) = start_reactors(args)?;
    // Both runtimes have at least one reactor.
    let control_handle = control.handles()[0].clone();
    let mut devices = DeviceList::load(state)?;
    let pool = pool::open_pool(&mut devices, &control_handle, log)?;

    let target_name = args.target_name.clone().unwrap_or_else(default_target_name);
    let listening = portals::bind(&args.portals, &control_handle, &data.reactors())?;
    let portals = listening.infos.clone();
    let audit = Arc::new(Audit::new(log.clone()));
    let target = Target::new(
        TargetConfig {
            name: target_name.clone(),
            ports: portals.iter().map(|portal| portal.target_port).collect(),
            sanitize_bytes_per_second: args.sanitize_rate,
        },
        Arc::new(runtime::Reactors),
        Arc::clone(&audit) as Arc<dyn target::EventSink>,
    );
    let endings = Arc::new(Endings::default());
    pool.set_events(keeper::KeeperEvents {
        audit: Arc::clone(&audit),
        endings: Arc::clone(&endings),
    });
    let domains = Domains::new(domains::Parts {
        control: control_handle.clone(),
        pool: Arc::clone(&pool),
        target: Arc::clone(&target),
        audit: Arc::clone(&audit),
        remote,
    });
    add_volumes(&pool, &target, &domains, &control_handle, log)?;
    // It works beside the operators' requests and ends with the reactor.
    let kept = Arc::clone(&pool);
    drop(control_handle.spawn(move || async move { kept.keep().await }));
    let service = Service::new(ServiceConfig {
        target: Arc::clone(&target),
        portals: portals.clone(),
        chap,
        ping_interval: (args.nop_interval > 0)
            .then(|| Duration::from_secs(u64::from(args.nop_interval))),
        observer: Arc::clone(&audit) as Arc<dyn crate::iscsi::SessionObserver>,
    });

    // Fences that were under way go on, and logins that must be refused are, before any portal serves.
    let (starting, served) = (Arc::clone(&domains), Arc::clone(&service));
    on_reactor(&control_handle, move || async move {
        starting.start(&served).await;
    })?;

    let operations = Arc::new(Operations::new(operations::Parts {
        state: state.to_owned(),
        target_name: target_name.clone(),
        portals: portals.clone(),
        io: match control_handle.backend() {
            reactor::Backend::IoUring => "io_uring".to_owned(),
            reactor::Backend::Epoll => "epoll".to_owned(),
        },
        reactors: data.handles().len(),
        control: control_handle.clone(),
        devices,
        pool: Arc::clone(&pool),
        target,
        service: Arc::clone(&service),
        audit,
        endings,
        domains,
    }));
    let chores = operations
        .start_chores()
        .map_err(|error| Failure::failed(format!("no thread for the chores: {error}")))?;
    let server = Server::start(state, Arc::clone(&operations) as Arc<_>).map_err(|error| {
        Failure::failed(format!(
            "the control socket in {} cannot be made: {error}",
            state.display()
        ))
    })?;
    let api = match (args.api, &identity) {
        (Some(address), Some(identity)) => {
            let handler = Arc::clone(&operations) as Arc<_>;
            Some(ApiServer::start(address, identity, handler, api::permits)?)
        }
        _ => None,
    };
    listening.start(service.clone());
    log.record(What::DaemonStarted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        portals: portals
            .iter()
            .map(|portal| portal.address.to_string())
            .collect(),
    });
    announce(output, &target_name, &portals, api.as_ref())?;
    notify::notify("READY=1");

    let signal = signals.forever().next();
    let reason = match signal {
        Some(SIGINT) => "SIGINT",
        _ => "SIGTERM",
    };
    tracing::info!(reason, "stopping");
    notify::notify("STOPPING=1");
    server.close();
    if let Some(api) = &api {
        api.close();
    }
    let grace = Duration::from_secs(u64::from(args.shutdown_timeout));
    on_reactor(&control_handle, move || async move {
        service.shutdown(grace).await
    })?;
    operations.stop_chores();
    // A thread of ours that panicked has said so itself.
    let _ = chores.join();
    close(&control_handle, pool)?;
    log.record(What::DaemonStopped {
        reason: reason.to_owned(),
    });
    data.shutdown();
    control.shutdown();
    Ok(server)
}

/// Asks the kernel for SIGKILL when the parent ends: a daemon of a test or demo that hangs must not stay behind.
fn exit_with_parent() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| Failure::failed(format!("the parent cannot be watched: {error}")))
}

fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // It fails when there is a subscriber already, which then serves as well.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init();
}

/// How long a data reactor that has run out of work looks for more before it sleeps, while its waits are about that short:
/// longer than the next command of a client of depth 1 takes to come, and than a CPU takes to be woken.
const SPIN: Duration = Duration::from_micros(50);

fn start_reactors(args: &ServeArgs) -> Result<(reactor::Runtime, reactor::Runtime), Failure> {
    let backend = match args.io {
        IoEngine::Auto => BackendChoice::Auto,
        IoEngine::IoUring => BackendChoice::IoUring,
        IoEngine::Epoll => BackendChoice::Epoll,
    };
    let mut config = reactor::Config {
        backend,
        spin: SPIN,
        ..reactor::Config::default()
    };
    if let Some(reactors) = args.reactors {
        config.reactors = usize::from(reactors);
    }
    let control = reactor::Config {
        reactors: 1,
        name: "control-reactor".to_owned(),
        spin: Duration::ZERO,
        ..config.clone()
    };
    let start = |config: &reactor::Config| {
        reactor::Runtime::start(config).map_err(|error| {
            let failure = Failure::failed(format!("the reactors cannot be started: {error}"));
            match args.io {
                IoEngine::IoUring => failure.advise(
                    "this kernel or container forbids io_uring (see sysctl kernel.io_uring_disabled); use --io auto or --io epoll",
                ),
                _ => failure,
            }
        })
    };
    Ok((start(&config)?, start(&control)?))
}

/// `iqn.2026-11.dev.ringfence:HOSTNAME`, with the host's name as the rules for iSCSI names allow it.
fn default_target_name() -> String {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_lowercase();
    let host: String = host
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        .collect();
    let host = if host.is_empty() { "localhost" } else { &host };
    format!("iqn.2026-11.dev.ringfence:{host}")
}

fn add_volumes(
    pool: &Pool<FileDevice>,
    target: &Arc<Target<FileDevice>>,
    domains: &Arc<Domains>,
    control: &Handle,
    log: &EventLog,
) -> Result<(), Failure> {
    let loading = Arc::clone(domains);
    on_reactor(control, move || async move { loading.load().await })??;
    for volume in pool.volumes() {
        let name = volume.record().name.clone();
        if let Some(reason) = volume.fault() {
            tracing::error!(volume = name, reason, "not served");
            log.record(What::VolumeNotServed {
                volume: name.clone(),
                reason,
            });
        }
        let target = Arc::clone(target);
        on_reactor(control, move || async move {
            target.add_logical_unit(volume).await.map(|_| ())
        })?
        .map_err(|error| Failure::failed(format!("volume {name} cannot be served: {error}")))?;
    }
    Ok(())
}

fn announce(
    output: Output,
    target_name: &str,
    portals: &[PortalInfo],
    api: Option<&ApiServer>,
) -> Result<(), Failure> {
    for portal in portals {
        let object = json!({
            "portal": portal.address.to_string(),
            "target_port": portal.target_port,
            "target_name": target_name,
        });
        output.line(&object, || {
            format!(
                "portal {} target-port {} {target_name}",
                portal.address, portal.target_port
            )
        })?;
    }
    if let Some(api) = api {
        let address = api.address();
        output.line(&json!({ "api": address }), || format!("api {address}"))?;
    }
    output.line(&json!({ "ready": true }), || "ready".to_owned())
}

/// How long the devices may take for the last flushes.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);

/// Makes everything durable and says on the devices that it was a clean stop.
fn close(control: &Handle, pool: Arc<Pool<FileDevice>>) -> Result<(), Failure> {
    let closed = on_reactor(control, move || async move {
        reactor::timeout(CLOSE_PATIENCE, pool.close()).await
    })?;
    match closed {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::failed(format!("not all was flushed: {error}"))),
        Err(_) => Err(Failure::failed(format!(
            "a device did not answer for {} s, and not all was flushed",
            CLOSE_PATIENCE.as_secs()
        ))),
    }
}
