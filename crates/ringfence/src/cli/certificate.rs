//! `ringfence certificate`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::Context;
use crate::failure::Failure;
use crate::names::object_name;
use crate::network::certificates::{AUTHORITY, AUTHORITY_KEY, Purpose, init, issue};
use crate::network::role::Role;

/// `certificate`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  ringfence certificate init /etc/ringfence/tls
  ringfence certificate issue /etc/ringfence/tls head1 --role head --address head1.example --address 10.0.0.5
  ringfence certificate issue /etc/ringfence/tls vm1 --role fence --domain prod
  ringfence serve --api 10.0.0.5 --tls-cert /etc/ringfence/tls/head1.pem --tls-key /etc/ringfence/tls/head1.key \\
      --tls-ca /etc/ringfence/tls/ca.pem

A machine needs its own NAME.pem and NAME.key and the ca.pem. The ca.key stays where certificates are issued. Certificates of
another authority do as well: the subject of a client's needs CN=NAME and OU=fence or OU=quorum, and O=DOMAIN restricts it.")]
pub enum CertificateCommand {
    /// Make an authority: DIR/ca.pem and DIR/ca.key
    Init(InitArgs),
    /// Issue a certificate of the authority in DIR: DIR/NAME.pem and DIR/NAME.key
    Issue(IssueArgs),
}

/// `certificate init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Where its files go
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// How long it is valid, in days
    #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CertificateRole {
    /// A daemon: it listens with it, and asks its quorum server with it
    Head,
    /// A fence agent: it may look at domains, fence and unfence
    Fence,
    /// Only to ask for the votes of a quorum server
    Quorum,
}

/// `certificate issue`.
#[derive(Debug, Args)]
pub struct IssueArgs {
    /// Where the authority is
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Name of whom it is for; the event log shows it
    #[arg(value_parser = object_name)]
    pub name: String,
    /// What it is for
    #[arg(long, value_enum)]
    pub role: CertificateRole,
    /// Host name or IP address that clients call a head by, repeatable
    #[arg(long = "address", value_name = "NAME|IP")]
    pub addresses: Vec<String>,
    /// The only fence domain that a client may ask about
    #[arg(long, value_name = "DOMAIN", value_parser = object_name)]
    pub domain: Option<String>,
    /// How long it is valid, in days
    #[arg(long, value_name = "DAYS", default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
}

/// Carries it out; no daemon is needed.
pub fn run(context: &Context, command: CertificateCommand) -> Result<(), Failure> {
    match command {
        CertificateCommand::Init(args) => {
            init(&args.directory, args.days)?;
            let (certificate, key) = (
                args.directory.join(AUTHORITY),
                args.directory.join(AUTHORITY_KEY),
            );
            context
                .output
                .line(&json!({ "certificate": certificate, "key": key }), || {
                    format!("{}\n{} (secret)", certificate.display(), key.display())
                })
        }
        CertificateCommand::Issue(args) => {
            let purpose = purpose(&args)?;
            let identity = issue(&args.directory, &args.name, &purpose, args.days)?;
            context.output.line(
                &json!({
                    "certificate": identity.certificate,
                    "key": identity.key,
                    "authority": identity.authority,
                }),
                || {
                    format!(
                        "{}\n{} (secret)\n{}",
                        identity.certificate.display(),
                        identity.key.display(),
                        identity.authority.display()
                    )
                },
            )
        }
    }
}

fn purpose(args: &IssueArgs) -> Result<Purpose, Failure> {
    let role = match args.role {
        CertificateRole::Head => {
            if args.addresses.is_empty() {
                return Err(Failure::usage(
                    "a head's certificate needs the names or addresses that clients call it by",
                )
                .advise("--address NAME|IP, repeatable"));
            }
            if args.domain.is_some() {
                return Err(Failure::usage(
                    "a head's certificate is not restricted to a domain",
                ));
            }
            return Ok(Purpose::Head(args.addresses.clone()));
        }
        CertificateRole::Fence => Role::Fence,
        CertificateRole::Quorum => Role::Quorum,
    };
    if !args.addresses.is_empty() {
        return Err(Failure::usage(
            "--address is for certificates of heads: clients are known by their names",
        ));
    }
    Ok(Purpose::Client {
        role,
        domain: args.domain.clone(),
    })
}
