//! What becomes of one SYN in the rules of a host: nftables' as `nft -j list
//! ruleset` tells them, and those that `iptables-save` tells.
//!
//! A rule whose condition is not understood may apply or not. So may one that
//! asks who sent the SYN: it is anybody's.

use serde_json::Value;

/// Rules may jump to each other, but not in circles; should they, all the same.
const DEPTH_MAX: usize = 32;
/// Hooks that a SYN for this host comes through, in their order.
const HOOKS: [&str; 3] = ["ingress", "prerouting", "input"];

/// A first SYN from anywhere, for an address of this host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syn<'a> {
    pub(super) ipv6: bool,
    pub(super) port: u16,
    pub(super) interface: &'a str,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    Maybe,
}

impl Holds {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Maybe,
        }
    }

    fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
        }
    }
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Accept,
    Drop,
    Jump(String),
    Goto(String),
    Return,
    /// To another port, or another host.
    Redirect(Redirect),
}

/// Where a SYN is sent instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Redirect {
    /// The port, if it is another.
    pub(super) port: Option<u16>,
    /// The address, if it is another.
    pub(super) address: Option<String>,
}

#[derive(Clone, Debug)]
struct Rule {
    applies: Holds,
    verdict: Verdict,
}

#[derive(Clone, Debug)]
struct Chain {
    /// With its family and table.
    name: String,
    /// A place in [`HOOKS`] and a priority; none: only others jump here.
    hook: Option<(usize, i64)>,
    drops: bool,
    rules: Vec<Rule>,
    /// The command that lets the SYN through.
    remedy: String,
}

/// Chains as one SYN meets them.
#[derive(Clone, Debug, Default)]
pub(super) struct Chains(Vec<Chain>);

/// What becomes of a SYN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// It does not arrive.
    pub(super) dropped: Option<Dropped>,
    pub(super) redirects: Vec<Redirect>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    /// The chain.
    pub(super) by: String,
    /// The command that mends it.
    pub(super) remedy: String,
    /// Some may be let through, of whatever kind.
    pub(super) some_pass: bool,
}

enum End {
    Accept,
    Drop,
    Through,
}

#[derive(Default)]
struct Seen {
    maybe_accepted: bool,
    redirects: Vec<Redirect>,
}

impl Chains {
    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(super) fn fate(&self) -> Fate {
        let mut base: Vec<_> = self.0.iter().filter(|chain| chain.hook.is_some()).collect();
        base.sort_by_key(|chain| chain.hook);
        let mut fate = Fate::default();
        for chain in base {
            let mut seen = Seen::default();
            let dropped = match self.walk(chain, 0, &mut seen) {
                End::Drop => true,
                End::Accept => false,
                End::Through => chain.drops,
            };
            fate.redirects.append(&mut seen.redirects);
            if dropped && fate.dropped.as_ref().is_none_or(|before| before.some_pass) {
                fate.dropped = Some(Dropped {
                    by: chain.name.clone(),
                    remedy: chain.remedy.clone(),
                    some_pass: seen.maybe_accepted,
                });
            }
        }
        fate
    }

    fn walk(&self, chain: &Chain, depth: usize, seen: &mut Seen) -> End {
        for rule in &chain.rules {
            let surely = match rule.applies {
                Holds::No => continue,
                Holds::Yes => true,
                Holds::Maybe => false,
            };
            let end = match &rule.verdict {
                Verdict::Accept => End::Accept,
                Verdict::Drop => End::Drop,
                Verdict::Return => End::Through,
                Verdict::Redirect(to) => {
                    seen.redirects.push(to.clone());
                    End::Accept
                }
                Verdict::Jump(to) | Verdict::Goto(to) => {
                    let to = self.0.iter().find(|chain| chain.name == *to);
                    match to.filter(|_| depth < DEPTH_MAX) {
                        Some(to) => self.walk(to, depth + 1, seen),
                        None => End::Through,
                    }
                }
            };
            match (end, &rule.verdict) {
                (End::Through, Verdict::Jump(_)) => {}
                // Where it may not apply, the next rules count as well.
                (End::Accept, _) if !surely => seen.maybe_accepted = true,
                (end, _) if surely => return end,
                _ => {}
            }
        }
        End::Through
    }
}

/// The chains of `nft -j list ruleset`. Tables that have rules in iptables' form
/// are left out if `iptables-save` tells them, too.
pub(super) fn nft(ruleset: &Value, syn: Syn<'_>, iptables_told: bool) -> Chains {
    let objects = ruleset["nftables"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let of = |object: &Value| {
        let text = |key| object[key].as_str().unwrap_or_default().to_owned();
        (text("family"), text("table"))
    };
    let rules = || objects.iter().filter_map(|object| object.get("rule"));
    let is_xt = |rule: &Value| {
        let parts = rule["expr"].as_array().into_iter().flatten();
        parts.into_iter().any(|part| part.get("xt").is_some())
    };
    let xt_tables: Vec<_> = rules().filter(|rule| is_xt(rule)).map(of).collect();
    let family = if syn.ipv6 { "ip6" } else { "ip" };
    let mut chains = Chains::default();
    for chain in objects.iter().filter_map(|object| object.get("chain")) {
        let (of_family, table) = of(chain);
        let told = iptables_told && xt_tables.contains(&(of_family.clone(), table.clone()));
        if told || !["inet", "netdev", family].contains(&of_family.as_str()) {
            continue;
        }
        let name = chain["name"].as_str().unwrap_or_default();
        let reading = Reading {
            syn,
            objects,
            family: &of_family,
            table: &table,
        };
        let on_device = chain.get("dev").is_none_or(|devices| {
            members(devices).any(|device| device.as_str() == Some(syn.interface))
        });
        let hook = chain["hook"].as_str().filter(|_| on_device);
        let hook = hook.and_then(|hook| HOOKS.iter().position(|of| *of == hook));
        let own = rules().filter(|rule| {
            of(rule) == (of_family.clone(), table.clone()) && rule["chain"].as_str() == Some(name)
        });
        chains.0.push(Chain {
            name: format!("{of_family} {table} {name}"),
            hook: hook.map(|hook| (hook, chain["prio"].as_i64().unwrap_or(0))),
            drops: chain["policy"].as_str() == Some("drop"),
            rules: own.flat_map(|rule| reading.rule(rule)).collect(),
            remedy: format!(
                "nft insert rule {of_family} {table} {name} tcp dport {} accept",
                syn.port
            ),
        });
    }
    chains
}

/// The members of a set, a list, or a single value.
fn members(value: &Value) -> impl Iterator<Item = &Value> {
    let several = value.get("set").unwrap_or(value).as_array();
    let single = several.is_none().then_some(value);
    several.into_iter().flatten().chain(single).map(|member| {
        // An element with a comment, a counter or a timeout.
        member.pointer("/elem/val").unwrap_or(member)
    })
}

/// What a rule of nftables is read against.
#[derive(Clone, Copy)]
struct Reading<'a> {
    syn: Syn<'a>,
    objects: &'a [Value],
    family: &'a str,
    table: &'a str,
}

impl Reading<'_> {
    /// One for each verdict of a verdict map.
    fn rule(&self, rule: &Value) -> Vec<Rule> {
        let mut applies = Holds::Yes;
        let mut rules = Vec::new();
        for part in rule["expr"].as_array().into_iter().flatten() {
            let Some((kind, value)) = part.as_object().and_then(|part| part.iter().next()) else {
                continue;
            };
            match kind.as_str() {
                "match" => applies = applies.and(self.condition(value)),
                // What they hold for depends on what came before.
                "limit" | "ct count" | "quota" | "xt" => applies = applies.and(Holds::Maybe),
                "vmap" => {
                    for pair in members(&value["data"]) {
                        let verdict = pair.get(1).and_then(|verdict| {
                            let verdict = verdict.as_object()?.iter().next()?;
                            self.verdict(verdict.0, verdict.1)
                        });
                        let key = pair.get(0).unwrap_or(&Value::Null);
                        let holds = self.equals(&value["key"], key);
                        rules.extend(verdict.map(|verdict| Rule {
                            applies: applies.and(holds),
                            verdict,
                        }));
                    }
                }
                _ => rules.extend(
                    self.verdict(kind, value)
                        .map(|verdict| Rule { applies, verdict }),
                ),
            }
        }
        rules
    }

    fn verdict(&self, kind: &str, value: &Value) -> Option<Verdict> {
        let chain = || {
            let target = value["target"].as_str().unwrap_or_default();
            format!("{} {} {target}", self.family, self.table)
        };
        let port = || value["port"].as_u64().and_then(|port| port.try_into().ok());
        Some(match kind {
            "accept" => Verdict::Accept,
            "drop" | "reject" => Verdict::Drop,
            "jump" => Verdict::Jump(chain()),
            "goto" => Verdict::Goto(chain()),
            "return" => Verdict::Return,
            "redirect" => Verdict::Redirect(Redirect {
                port: port(),
                address: None,
            }),
            "dnat" | "tproxy" => Verdict::Redirect(Redirect {
                port: port(),
                address: value.get("addr").map(|address| match address.as_str() {
                    Some(address) => address.to_owned(),
                    None => address.to_string(),
                }),
            }),
            _ => return None,
        })
    }

    fn condition(&self, condition: &Value) -> Holds {
        let (left, right) = (&condition["left"], &condition["right"]);
        // Several flags or states in one: a first SYN has one of each.
        let several = right.as_array().is_some_and(|flags| flags.len() > 1);
        match condition["op"].as_str() {
            Some("==") if several => Holds::No,
            Some("!=") if several => Holds::Yes,
            Some("==" | "in") => self.is_in(left, right),
            Some("!=") => self.is_in(left, right).not(),
            _ => Holds::Maybe,
        }
    }

    fn is_in(&self, left: &Value, right: &Value) -> Holds {
        if let Some(name) = right.as_str().and_then(|right| right.strip_prefix('@')) {
            return match self.set(name) {
                Some(set) => self.is_in(left, set),
                None => Holds::Maybe,
            };
        }
        members(right).fold(Holds::No, |holds, right| holds.or(self.equals(left, right)))
    }

    /// The elements of a named set. One that packets fill is not told apart.
    fn set(&self, name: &str) -> Option<&Value> {
        let sets = self.objects.iter().filter_map(|object| object.get("set"));
        let mut sets = sets.filter(|set| {
            set["family"].as_str() == Some(self.family)
                && set["table"].as_str() == Some(self.table)
                && set["name"].as_str() == Some(name)
        });
        sets.next()?.get("elem")
    }

    /// Whether what `left` looks at is `right`.
    fn equals(&self, left: &Value, right: &Value) -> Holds {
        let text = right.as_str();
        let payload = |protocol, field| {
            left.pointer("/payload/protocol").and_then(Value::as_str) == Some(protocol)
                && left.pointer("/payload/field").and_then(Value::as_str) == Some(field)
        };
        let meta = left.pointer("/meta/key").and_then(Value::as_str);
        let tcp = || Holds::from(text == Some("tcp") || right.as_u64() == Some(6));
        let family = if self.syn.ipv6 { "ipv6" } else { "ipv4" };
        if payload("tcp", "dport") || payload("th", "dport") {
            return is_port(right, self.syn.port);
        }
        if left.to_string().contains(r#""protocol":"tcp""#)
            && left.to_string().contains(r#""field":"flags""#)
        {
            // With or without a mask: SYN is set, and nothing else is.
            return Holds::from(text == Some("syn"));
        }
        match meta {
            Some("l4proto") => return tcp(),
            Some("nfproto") => return Holds::from(text == Some(family)),
            Some("protocol") => {
                let ether = if self.syn.ipv6 { "ip6" } else { "ip" };
                return Holds::from(text == Some(ether));
            }
            Some("iif" | "iifname") => {
                let interface = self.syn.interface;
                return text.map_or(Holds::Maybe, |name| match name.strip_suffix('*') {
                    Some(head) => interface.starts_with(head).into(),
                    None => (interface == name).into(),
                });
            }
            _ => {}
        }
        match left.pointer("/payload/protocol").and_then(Value::as_str) {
            Some("ip") if self.syn.ipv6 => return Holds::No,
            Some("ip6") if !self.syn.ipv6 => return Holds::No,
            Some("ip") if payload("ip", "protocol") => return tcp(),
            Some("ip6") if payload("ip6", "nexthdr") => return tcp(),
            Some(
                "udp" | "udplite" | "icmp" | "icmpv6" | "sctp" | "dccp" | "arp" | "igmp" | "esp",
            ) => {
                return Holds::No;
            }
            _ => {}
        }
        if left.pointer("/ct/key").and_then(Value::as_str) == Some("state") {
            return text.map_or(Holds::Maybe, |state| (state == "new").into());
        }
        let fib = left.get("fib");
        if fib.is_some_and(|fib| {
            fib["result"].as_str() == Some("type")
                && members(&fib["flags"]).any(|flag| flag.as_str() == Some("daddr"))
        }) {
            return text.map_or(Holds::Maybe, |kind| (kind == "local").into());
        }
        Holds::Maybe
    }
}

/// A port, a range of ports, or something that is not told apart.
fn is_port(value: &Value, port: u16) -> Holds {
    if let Some(number) = value.as_u64() {
        return Holds::from(number == u64::from(port));
    }
    let ends = value.get("range").and_then(Value::as_array);
    match ends.map(|ends| (ends.first(), ends.get(1))) {
        Some((Some(first), Some(last))) => match (first.as_u64(), last.as_u64()) {
            (Some(first), Some(last)) => (first..=last).contains(&port.into()).into(),
            _ => Holds::Maybe,
        },
        _ => Holds::Maybe,
    }
}

/// The chains of `iptables-save`, or for IPv6 of `ip6tables-save`.
pub(super) fn iptables(saved: &str, syn: Syn<'_>) -> Chains {
    let command = if syn.ipv6 { "ip6tables" } else { "iptables" };
    let mut chains = Chains::default();
    let mut table = "";
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim();
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split(' ');
            let name = words.next().unwrap_or_default();
            let hook = match name {
                "PREROUTING" => Some(1),
                "INPUT" => Some(2),
                _ => None,
            };
            let priority = match table {
                "raw" => -300,
                "mangle" => -150,
                "nat" => -100,
                _ => 0,
            };
            chains.0.push(Chain {
                name: format!("{command} {table} {name}"),
                hook: hook.map(|hook| (hook, priority)),
                drops: words.next() == Some("DROP"),
                rules: Vec::new(),
                remedy: format!(
                    "{command} -t {table} -I {name} -p tcp --dport {} -j ACCEPT",
                    syn.port
                ),
            });
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let words = words(rule);
            let Some((chain, words)) = words.split_first() else {
                continue;
            };
            let prefix = format!("{command} {table}");
            let name = format!("{prefix} {chain}");
            let rule = iptables_rule(words, syn, &prefix);
            if let Some(chain) = chains.0.iter_mut().find(|of| of.name == name) {
                chain.rules.extend(rule);
            }
        }
    }
    chains
}

/// The words of a line; those in double quotes may have spaces.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for character in line.chars() {
        match character {
            _ if escaped => {
                escaped = false;
                words
                    .last_mut()
                    .into_iter()
                    .for_each(|word| word.push(character));
            }
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            _ => words
                .last_mut()
                .into_iter()
                .for_each(|word| word.push(character)),
        }
    }
    words
}

fn iptables_rule(words: &[String], syn: Syn<'_>, prefix: &str) -> Option<Rule> {
    let mut applies = Holds::Yes;
    let mut verdict = None;
    let mut redirect = Redirect {
        port: None,
        address: None,
    };
    let mut words = words.iter().map(String::as_str).peekable();
    let mut negated = false;
    while let Some(option) = words.next() {
        if option == "!" {
            negated = true;
            continue;
        }
        let mut value = || words.next_if(|word| *word != "!" && !word.starts_with('-'));
        let in_list = |list: Option<&str>, wanted: &dyn Fn(&str) -> bool| {
            Holds::from(list.unwrap_or_default().split(',').any(wanted))
        };
        let holds = match option {
            "-p" | "--protocol" => in_list(value(), &|name| matches!(name, "tcp" | "6" | "all")),
            "-i" | "--in-interface" => in_list(value(), &|name| match name.strip_suffix('+') {
                Some(head) => syn.interface.starts_with(head),
                None => syn.interface == name,
            }),
            "--dport" | "--destination-port" | "--dports" | "--destination-ports" => {
                in_list(value(), &|ports| {
                    let (first, last) = ports.split_once(':').unwrap_or((ports, ports));
                    let first = first.parse().unwrap_or(0);
                    (first..=last.parse().unwrap_or(u16::MAX)).contains(&syn.port)
                })
            }
            "--ctstate" | "--state" => in_list(value(), &|state| state == "NEW"),
            "--syn" => Holds::Yes,
            "--tcp-flags" => {
                let mask = value().unwrap_or_default();
                let set = if mask.split(',').any(|flag| flag == "SYN" || flag == "ALL") {
                    "SYN"
                } else {
                    "NONE"
                };
                Holds::from(value() == Some(set))
            }
            "--dst-type" => in_list(value(), &|kind| kind == "LOCAL"),
            "-m" | "--match" => match value() {
                Some("tcp" | "comment" | "conntrack" | "state" | "multiport" | "addrtype") => {
                    Holds::Yes
                }
                _ => Holds::Maybe,
            },
            "--comment" => {
                // Whatever it begins with.
                words.next();
                Holds::Yes
            }
            "-j" | "-g" | "--jump" | "--goto" => {
                let target = value().unwrap_or_default();
                verdict = match target {
                    "ACCEPT" => Some(Verdict::Accept),
                    "DROP" | "REJECT" => Some(Verdict::Drop),
                    "RETURN" => Some(Verdict::Return),
                    "REDIRECT" | "DNAT" | "TPROXY" => Some(Verdict::Redirect(redirect.clone())),
                    _ if option.contains('g') => Some(Verdict::Goto(format!("{prefix} {target}"))),
                    _ => Some(Verdict::Jump(format!("{prefix} {target}"))),
                };
                Holds::Yes
            }
            "--to-ports" | "--on-port" => {
                redirect.port = value().and_then(|port| port.parse().ok());
                Holds::Yes
            }
            "--to-destination" | "--on-ip" => {
                let to = value().unwrap_or_default();
                let port = to.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
                redirect.port = port.filter(|_| to.contains('.') || to.contains(']'));
                redirect.address = Some(to.to_owned());
                Holds::Yes
            }
            "--reject-with" => {
                value();
                Holds::Yes
            }
            _ => {
                value();
                Holds::Maybe
            }
        };
        applies = applies.and(if negated { holds.not() } else { holds });
        negated = false;
    }
    if let Some(Verdict::Redirect(to)) = &mut verdict {
        *to = redirect;
    }
    verdict.map(|verdict| Rule { applies, verdict })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const SYN: Syn<'_> = Syn {
        ipv6: false,
        port: 25,
        interface: "eth0",
    };

    fn tcp_dport(right: &Value) -> Value {
        json!({"match": {"op": "==", "right": right,
            "left": {"payload": {"protocol": "tcp", "field": "dport"}}}})
    }

    fn ct_state(states: &[&str]) -> Value {
        json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": states}})
    }

    fn ruleset(policy: &str, rules: &[Value]) -> Value {
        let mut objects = vec![json!({"chain": {"family": "inet", "table": "filter",
            "name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": policy}})];
        objects.extend(rules.iter().map(|rule| {
            json!({"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": rule}})
        }));
        json!({ "nftables": objects })
    }

    fn dropped(fate: &Fate) -> Option<bool> {
        fate.dropped.as_ref().map(|dropped| dropped.some_pass)
    }

    fn fate(policy: &str, rules: &[Value]) -> Option<bool> {
        dropped(&nft(&ruleset(policy, rules), SYN, false).fate())
    }

    #[test]
    fn rules_of_nftables() {
        let accept = json!({"accept": null});
        let drop = json!({"drop": null});
        let established = json!([ct_state(&["established", "related"]), accept]);
        let from_some = json!([{"match": {"op": "==", "right": "192.0.2.9",
            "left": {"payload": {"protocol": "ip", "field": "saddr"}}}}, accept]);
        let lo = json!([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}},
            "right": "lo"}}, accept]);
        let smtp = json!([tcp_dport(&json!(25)), {"counter": {"packets": 0}}, accept]);
        assert_eq!(fate("accept", &[]), None);
        assert_eq!(fate("drop", &[]), Some(false));
        assert_eq!(fate("drop", &[lo, established.clone()]), Some(false));
        assert_eq!(fate("drop", &[established, smtp.clone()]), None);
        assert_eq!(fate("drop", &[from_some]), Some(true));
        let new_not_syn = json!([{"match": {"op": "!=", "right": "syn", "left": {"&": [
            {"payload": {"protocol": "tcp", "field": "flags"}},
            ["fin", "syn", "rst", "ack"]]}}}, ct_state(&["new"]), drop]);
        assert_eq!(fate("accept", &[new_not_syn]), None);
        let both_flags = json!([{"match": {"op": "==", "right": ["fin", "syn"], "left": {"&": [
            {"payload": {"protocol": "tcp", "field": "flags"}}, ["fin", "syn"]]}}}, drop]);
        assert_eq!(fate("accept", &[both_flags]), None);
        let invalid = json!([ct_state(&["invalid"]), drop]);
        assert_eq!(fate("accept", &[invalid]), None);
        let limited = json!([tcp_dport(&json!(25)), {"limit": {"rate": 5}}, accept]);
        assert_eq!(fate("drop", &[limited]), Some(true));
        let rejected =
            json!([tcp_dport(&json!({"set": [22, {"range": [20, 30]}]})), {"reject": {}}]);
        assert_eq!(fate("accept", std::slice::from_ref(&rejected)), Some(false));
        assert_eq!(fate("accept", &[smtp, rejected]), None);
        let others = json!([tcp_dport(&json!({"set": [22, 80]})), {"drop": null}]);
        assert_eq!(fate("accept", &[others]), None);
        let map = json!([{"vmap": {"key": {"payload": {"protocol": "tcp", "field": "dport"}},
            "data": {"set": [[22, accept], [25, drop]]}}}]);
        assert_eq!(fate("accept", &[map]), Some(false));
    }

    #[test]
    fn jumps_and_named_sets() {
        let mut ruleset = ruleset("drop", &[json!([{"jump": {"target": "services"}}])]);
        let objects = ruleset["nftables"].as_array_mut().unwrap();
        objects.push(json!({"chain": {"family": "inet", "table": "filter", "name": "services"}}));
        objects.push(
            json!({"set": {"family": "inet", "table": "filter", "name": "open",
            "elem": [22, 25]}}),
        );
        assert_eq!(dropped(&nft(&ruleset, SYN, false).fate()), Some(false));
        let objects = ruleset["nftables"].as_array_mut().unwrap();
        objects.push(
            json!({"rule": {"family": "inet", "table": "filter", "chain": "services",
            "expr": [tcp_dport(&json!("@open")), {"accept": null}]}}),
        );
        assert_eq!(dropped(&nft(&ruleset, SYN, false).fate()), None);
        let ssh = Syn { port: 23, ..SYN };
        let dropped = nft(&ruleset, ssh, false).fate().dropped.unwrap();
        assert_eq!(dropped.by, "inet filter input");
        assert_eq!(
            dropped.remedy,
            "nft insert rule inet filter input tcp dport 23 accept"
        );
    }

    #[test]
    fn a_circle_ends() {
        let ruleset = ruleset("drop", &[json!([{"jump": {"target": "input"}}])]);
        assert_eq!(dropped(&nft(&ruleset, SYN, false).fate()), Some(false));
    }

    #[test]
    fn redirects_of_nftables() {
        let ruleset = json!({"nftables": [
            {"chain": {"family": "ip", "table": "nat", "name": "pre", "type": "nat",
                "hook": "prerouting", "prio": -100, "policy": "accept"}},
            {"rule": {"family": "ip", "table": "nat", "chain": "pre",
                "expr": [tcp_dport(&json!(25)), {"redirect": {"port": 2525}}]}},
        ]});
        let to = Redirect {
            port: Some(2525),
            address: None,
        };
        assert_eq!(nft(&ruleset, SYN, false).fate().redirects, [to]);
        let ipv6 = Syn { ipv6: true, ..SYN };
        assert_eq!(nft(&ruleset, ipv6, false).fate(), Fate::default());
    }

    #[test]
    fn tables_of_iptables_are_read_once() {
        let ruleset = ruleset("drop", &[json!([{"xt": null}, {"accept": null}])]);
        assert_eq!(dropped(&nft(&ruleset, SYN, false).fate()), Some(true));
        assert_eq!(dropped(&nft(&ruleset, SYN, true).fate()), None);
    }

    #[test]
    fn nonsense_is_no_rule() {
        for nonsense in [
            json!(null),
            json!({"nftables": [1, {"rule": 2}, {"chain": []}]}),
        ] {
            assert_eq!(nft(&nonsense, SYN, false).fate(), Fate::default());
        }
    }

    #[rstest]
    #[case::open(":INPUT ACCEPT [0:0]", None)]
    #[case::closed(":INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT", Some(false))]
    #[case::listed(
        ":INPUT DROP [0:0]\n-A INPUT -p tcp -m multiport --dports 22,25,80:90 -j ACCEPT",
        None
    )]
    #[case::stateful(
        ":INPUT DROP [0:0]\n\
         -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A INPUT -p tcp -m tcp --dport 25 -m comment --comment \"-j DROP here\" -j ACCEPT",
        None
    )]
    #[case::some(":INPUT DROP [0:0]\n-A INPUT -s 192.0.2.0/24 -j ACCEPT", Some(true))]
    #[case::new_not_syn(
        ":INPUT ACCEPT [0:0]\n\
         -A INPUT -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m state --state NEW -j DROP",
        None
    )]
    #[case::rejected(
        ":INPUT ACCEPT [0:0]\n:own - [0:0]\n-A INPUT ! -i lo -j own\n\
         -A own -p tcp -m tcp --dport 25 -j REJECT --reject-with tcp-reset",
        Some(false)
    )]
    #[case::both_flags(
        ":INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN FIN,SYN -j DROP",
        None
    )]
    #[case::other_protocol(":INPUT ACCEPT [0:0]\n-A INPUT -p udp -j DROP", None)]
    #[case::unknown(
        ":INPUT DROP [0:0]\n-A INPUT -m set --match-set a src -j ACCEPT",
        Some(true)
    )]
    fn rules_of_iptables(#[case] chains: &str, #[case] fate: Option<bool>) {
        let saved = format!("# a comment\n*filter\n{chains}\nCOMMIT\n");
        assert_eq!(dropped(&iptables(&saved, SYN).fate()), fate);
    }

    #[rstest]
    #[case("REDIRECT --to-ports 2525", Some(2525), None)]
    #[case("DNAT --to-destination 10.0.0.1:26", Some(26), Some("10.0.0.1:26"))]
    #[case("DNAT --to-destination 10.0.0.1", None, Some("10.0.0.1"))]
    fn redirects_of_iptables(
        #[case] target: &str,
        #[case] port: Option<u16>,
        #[case] address: Option<&str>,
    ) {
        let saved = format!(
            "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport 25 -j {target}\n"
        );
        let redirect = Redirect {
            port,
            address: address.map(str::to_owned),
        };
        assert_eq!(iptables(&saved, SYN).fate().redirects, [redirect]);
    }
}
