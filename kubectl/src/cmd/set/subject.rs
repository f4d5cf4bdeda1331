//! `kubectl set subject`: whom a role binding binds.

use futures::FutureExt;
use serde_json::{Value, json};

use super::super::ops::{Done, DryRun};
use super::{FLAGS, builder, submit};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::PRINT_FLAGS;
use crate::resource::FILE_FLAGS;

const SUBJECT_FLAGS: &[Flag] = &[
    Flag::array("group", "Groups to bind to the role"),
    Flag::array("serviceaccount", "Service accounts to bind to the role"),
    Flag::array("user", "Usernames to bind to the role"),
];

/// `kubectl set subject`.
pub const COMMAND: Command = Command::new(
    "subject",
    "Update the user, group, or service account in a role binding or cluster role binding.",
    "(-f FILENAME | TYPE NAME) [--user=username] [--group=groupname] [--serviceaccount=namespace:serviceaccountname]",
    &[FLAGS, SUBJECT_FLAGS, FILE_FLAGS, PRINT_FLAGS],
    |ctx| set(ctx).boxed_local(),
);

fn subjects(users: &[String], groups: &[String], accounts: &[String]) -> Result<Vec<Value>> {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let named = |kind: &str, name: &String| json!({"kind": kind, "apiGroup": GROUP, "name": name});
    let mut found: Vec<Value> = users.iter().map(|name| named("User", name)).collect();
    found.extend(groups.iter().map(|name| named("Group", name)));
    for account in accounts {
        let (namespace, name) = account
            .split_once(':')
            .filter(|(_, name)| !name.contains(':'))
            .ok_or_else(|| Error::message("serviceaccount must be <namespace>:<name>"))?;
        if namespace.is_empty() {
            return Err(Error::message("serviceaccount must be <namespace>:<name>, namespace must be specified"));
        }
        found.push(json!({"kind": "ServiceAccount", "namespace": namespace, "name": name}));
    }
    Ok(found)
}

async fn set(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let dry_run = DryRun::from_flags(flags)?;
    let builder = builder(ctx)?;
    let wanted = subjects(&flags.list("user"), &flags.list("group"), &flags.list("serviceaccount"))?;
    if wanted.is_empty() {
        return Err(Error::message("you must specify at least one value of user, group or serviceaccount"));
    }
    let (infos, mut errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    let mut done = Done::from_flags(flags, dry_run)?;
    for mut info in infos {
        if !matches!(info.mapping.kind.as_str(), "RoleBinding" | "ClusterRoleBinding") {
            errors.push(Error::message(format!(
                "error: {} setting subjects is only supported for RoleBinding/ClusterRoleBinding\n",
                info.object_name()
            )));
            continue;
        }
        let mut object = info.object.clone();
        let mut all = codec::list(&object, &["subjects"]).to_vec();
        for subject in &wanted {
            if !all.contains(subject) {
                all.push(subject.clone());
            }
        }
        codec::set(&mut object, &["subjects"], Value::Array(all));
        submit(ctx, &mut info, object, &mut done, dry_run, ("subjects", "subjects to rolebinding:")).await?;
    }
    Error::aggregate(errors)
}

#[cfg(test)]
mod tests {
    use super::subjects;

    #[test]
    fn forms() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let found = subjects(&texts(&["u"]), &texts(&["g"]), &texts(&["n:a"])).expect("well formed");
        let kinds: Vec<_> = found.iter().map(|subject| subject["kind"].as_str().expect("text")).collect();
        assert_eq!(kinds, ["User", "Group", "ServiceAccount"]);
        for bad in ["a", ":a", "a:b:c"] {
            assert!(subjects(&[], &[], &texts(&[bad])).is_err(), "{bad}");
        }
    }
}
