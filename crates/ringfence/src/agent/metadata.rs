//! What the agent says of itself (the resource-agent XML of the fence-agents API).

/// One option.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// Names that others use for it.
    aliases: &'static [&'static str],
    /// Letter of the short option.
    pub(super) short: Option<char>,
    kind: &'static str,
    default: Option<&'static str>,
    description: &'static str,
}

const fn parameter(name: &'static str, kind: &'static str, description: &'static str) -> Parameter {
    Parameter {
        name,
        aliases: &[],
        short: None,
        kind,
        default: None,
        description,
    }
}

/// All options.
pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter {
        aliases: &["option"],
        short: Some('o'),
        default: Some("reboot"),
        ..parameter(
            "action",
            "string",
            "Fencing action; reboot fences as off does, and the node comes back by its unfencing (on) when it joins",
        )
    },
    Parameter {
        aliases: &["port", "nodename"],
        short: Some('n'),
        ..parameter("plug", "string", "Name of the member in the fence domain")
    },
    parameter("domain", "string", "Name of the fence domain"),
    Parameter {
        aliases: &["ipaddr", "heads"],
        short: Some('a'),
        ..parameter(
            "ip",
            "string",
            "Heads that serve the domain's volumes, HOST or HOST:PORT (default port 3262), separated by commas; all of them must fence. Without it: the daemon of this machine",
        )
    },
    parameter(
        "tls_cert",
        "string",
        "PEM file of this node's certificate (role fence)",
    ),
    parameter("tls_key", "string", "PEM file of its key"),
    parameter(
        "tls_ca",
        "string",
        "PEM file of the authority of the heads' certificates",
    ),
    Parameter {
        default: Some(crate::cli::DEFAULT_STATE),
        ..parameter(
            "state",
            "string",
            "State directory of the daemon of this machine, where ip is not given",
        )
    },
    parameter(
        "method",
        "string",
        "Fencing methods, separated by commas, instead of the member's own",
    ),
    Parameter {
        default: Some("60"),
        ..parameter(
            "power_timeout",
            "second",
            "How long to wait until a fence is proven",
        )
    },
    Parameter {
        default: Some("10"),
        ..parameter(
            "login_timeout",
            "second",
            "How long to wait for any other answer of a head",
        )
    },
];

impl Parameter {
    /// The option of this name or alias.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        PARAMETERS
            .iter()
            .find(|parameter| parameter.name == name || parameter.aliases.contains(&name))
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The description.
pub(super) fn xml() -> Vec<String> {
    let mut lines = vec![
        r#"<?xml version="1.0" ?>"#.to_owned(),
        r#"<resource-agent name="fence_ringfence" shortdesc="Fence agent for ringfence fence domains">"#.to_owned(),
        format!(
            "<longdesc>{}</longdesc>",
            escaped("fence_ringfence fences a member of a ringfence fence domain: its registrations go from all volumes of the domain at once, its I/O is drained before the answer, and it stays without access until it is unfenced. It is an unfencing agent: a node is given its access back when it joins the cluster.")
        ),
        "<vendor-url>https://ringfence.dev/</vendor-url>".to_owned(),
        "<parameters>".to_owned(),
    ];
    for parameter in PARAMETERS {
        let required = if parameter.name == "domain" { 1 } else { 0 };
        lines.push(format!(
            r#"  <parameter name="{}" unique="0" required="{required}">"#,
            parameter.name
        ));
        let long = parameter.name.replace('_', "-");
        let getopt = match parameter.short {
            Some(letter) => format!("-{letter}, --{long}=[value]"),
            None => format!("--{long}=[value]"),
        };
        lines.push(format!(r#"    <getopt mixed="{getopt}" />"#));
        let default = parameter
            .default
            .map(|value| format!(r#" default="{}""#, escaped(value)))
            .unwrap_or_default();
        lines.push(format!(
            r#"    <content type="{}"{default} />"#,
            parameter.kind
        ));
        lines.push(format!(
            r#"    <shortdesc lang="en">{}</shortdesc>"#,
            escaped(parameter.description)
        ));
        lines.push("  </parameter>".to_owned());
    }
    lines.push("</parameters>".to_owned());
    lines.push("<actions>".to_owned());
    for action in [
        r#"name="on" on_target="1" automatic="1""#,
        r#"name="off""#,
        r#"name="reboot""#,
        r#"name="status""#,
        r#"name="list""#,
        r#"name="list-status""#,
        r#"name="monitor""#,
        r#"name="metadata""#,
        r#"name="validate-all""#,
    ] {
        lines.push(format!("  <action {action} />"));
    }
    lines.push("</actions>".to_owned());
    lines.push("</resource-agent>".to_owned());
    lines
}
