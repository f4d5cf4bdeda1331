//! Static bearer tokens from `--token-auth-file`: CSV lines `token,user,uid,"group1,group2"`.

use std::collections::HashMap;

use crate::request::UserInfo;

/// Tokens read once at start, as upstream does.
#[derive(Clone, Debug, Default)]
pub struct Tokens(HashMap<String, UserInfo>);

impl Tokens {
    /// Reads the CSV text.
    ///
    /// # Errors
    /// Names the first line that has fewer than three columns.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let columns = columns(line);
            let [token, name, uid, rest @ ..] = columns.as_slice() else {
                return Err(format!(
                    "token file line {} must have at least 3 columns (token, user name, user uid), found {}",
                    number + 1,
                    columns.len()
                ));
            };
            if token.is_empty() {
                tracing::warn!(line = number + 1, "empty token has been found in token file");
                continue;
            }
            let groups = rest
                .first()
                .map(|groups| {
                    groups.split(',').map(str::trim).filter(|group| !group.is_empty()).map(str::to_string).collect()
                })
                .unwrap_or_default();
            let user = UserInfo { name: name.clone(), uid: uid.clone(), groups, ..UserInfo::default() };
            tokens.insert(token.clone(), user);
        }
        Ok(Self(tokens))
    }

    /// The user of a token.
    pub fn get(&self, token: &str) -> Option<UserInfo> {
        self.0.get(token).cloned()
    }
}

fn columns(line: &str) -> Vec<String> {
    let mut columns = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let last = columns.last_mut().expect("there is always a column");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                last.push('"');
                chars.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => columns.push(String::new()),
            c => last.push(c),
        }
    }
    columns.iter().map(|column| column.trim().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_csv() {
        let tokens = Tokens::parse("a,alice,1,\"x, y\"\n\nb,bob,2\n").unwrap();
        assert_eq!(tokens.get("a").unwrap().groups, ["x", "y"]);
        assert_eq!(tokens.get("b").unwrap().uid, "2");
        assert!(tokens.get("c").is_none());
        assert!(Tokens::parse("a,b").is_err());
    }
}
