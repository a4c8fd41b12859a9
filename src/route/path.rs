//! A radix tree over bytes: which stored keys are a prefix of this path.

use std::ops::Range;

/// How closely a rule's path fits, the most specific first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathLevel {
    /// The path itself.
    Exact,
    /// `path_regex`.
    Regex,
    /// A prefix of this many whole segments.
    Prefix {
        /// 0 for `/*`, 1 for `/v1/*`.
        segments: usize,
    },
    /// The rule has no path.
    Any,
}

/// Any number of trees in one arena; a tree is known by its root. Values are numbers the caller
/// gives a meaning.
#[derive(Clone, Debug, Default)]
pub(super) struct Radix {
    nodes: Vec<Node>,
    /// First byte of each node's label, beside the nodes: a node's children are searched in one
    /// short run of bytes instead of one cache line each.
    firsts: Vec<u8>,
    labels: Vec<u8>,
}

/// The number of a node in its arena.
pub(super) type NodeId = u32;

#[derive(Clone, Debug, Default)]
struct Node {
    label: Range<u32>,
    children: Range<u32>,
    /// Bytes from the root to the end of the label.
    depth: u32,
    /// The value, when a key ends here.
    value: Option<u32>,
    /// The nearest node above at which a key ends.
    up: Option<NodeId>,
}

/// One key that is a prefix of the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    /// Length of the key.
    pub(super) depth: usize,
    pub(super) value: u32,
    up: Option<NodeId>,
}

// === impl PathLevel ===

impl PathLevel {
    /// The level of a prefix rule stored as `prefix`.
    pub(super) fn prefix(prefix: &[u8]) -> Self {
        Self::Prefix {
            segments: prefix.split(|&byte| byte == b'/').count() - 1,
        }
    }
}

// === impl Radix ===

impl Radix {
    /// Adds a tree of `keys`, which are sorted by key, distinct and not none.
    pub(super) fn plant(&mut self, keys: &[(&[u8], u32)]) -> NodeId {
        let root = self.nodes.len() as NodeId;
        self.push(0);
        // An explicit stack: the depth of nested keys is the file's choice.
        let mut open = vec![(root, keys, 0, None)];
        while let Some((id, mut keys, start, mut up)) = open.pop() {
            let (Some((first, value)), Some((last, _))) = (keys.first(), keys.last()) else {
                continue;
            };
            // Sorted: what first and last share, all share.
            let depth = first.iter().zip(*last).take_while(|(a, b)| a == b).count();
            let label = self.labels.len() as u32;
            self.labels.extend_from_slice(&first[start..depth]);
            let mut node = Node {
                label: label..self.labels.len() as u32,
                children: 0..0,
                depth: depth as u32,
                value: None,
                up,
            };
            if first.len() == depth {
                node.value = Some(*value);
                up = Some(id);
                keys = &keys[1..];
            }
            let children = self.nodes.len() as NodeId;
            for group in keys.chunk_by(|(a, _), (b, _)| a[depth] == b[depth]) {
                open.push((self.nodes.len() as NodeId, group, depth, up));
                self.push(group[0].0[depth]);
            }
            node.children = children..self.nodes.len() as NodeId;
            self.nodes[id as usize] = node;
        }
        root
    }

    /// Calls `visit` with every key that is a prefix of `path`, the shortest first.
    #[inline]
    pub(super) fn descend(&self, root: NodeId, path: &[u8], mut visit: impl FnMut(Hit)) {
        let mut rest = path;
        let mut id = root;
        while let Some(node) = self.nodes.get(id as usize) {
            let label = &self.labels[node.label.start as usize..node.label.end as usize];
            let Some(after) = rest.strip_prefix(label) else {
                return;
            };
            rest = after;
            if let Some(hit) = Hit::at(node) {
                visit(hit);
            }
            let Some(byte) = rest.first() else { return };
            let firsts = &self.firsts[node.children.start as usize..node.children.end as usize];
            let Some(child) = firsts.iter().position(|first| first == byte) else {
                return;
            };
            id = node.children.start + child as NodeId;
        }
    }

    /// The next shorter key.
    #[inline]
    pub(super) fn up(&self, hit: Hit) -> Option<Hit> {
        Hit::at(self.nodes.get(hit.up? as usize)?)
    }

    fn push(&mut self, first: u8) {
        self.nodes.push(Node::default());
        self.firsts.push(first);
    }
}

// === impl Hit ===

impl Hit {
    #[inline]
    fn at(node: &Node) -> Option<Self> {
        Some(Self {
            depth: node.depth as usize,
            value: node.value?,
            up: node.up,
        })
    }

    /// Whether a prefix rule stored as this key covers `path`: its segments end where the key does.
    /// The empty key, `/*`, covers everything.
    #[inline]
    pub(super) fn ends_segment(&self, path: &[u8]) -> bool {
        self.depth == 0 || path.get(self.depth).is_none_or(|&byte| byte == b'/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(keys: &[&str], path: &str) -> Vec<String> {
        let mut radix = Radix::default();
        // A tree in front and one behind: roots are not zero and trees do not touch.
        radix.plant(&[(b"/", 7)]);
        let mut sorted: Vec<(&[u8], u32)> = keys
            .iter()
            .enumerate()
            .map(|(i, key)| (key.as_bytes(), i as u32))
            .collect();
        sorted.sort_unstable();
        let root = radix.plant(&sorted);
        radix.plant(&[(b"", 7), (b"/a", 7)]);

        let mut down = Vec::new();
        radix.descend(root, path.as_bytes(), |hit| down.push(hit));
        let mut up = Vec::new();
        let mut next = down.last().copied();
        while let Some(hit) = next {
            up.push(hit.value);
            next = radix.up(hit);
        }
        up.reverse();
        assert_eq!(up, down.iter().map(|hit| hit.value).collect::<Vec<_>>());
        for hit in &down {
            assert_eq!(hit.depth, keys[hit.value as usize].len());
        }
        up.iter()
            .map(|&value| keys[value as usize].to_owned())
            .collect()
    }

    #[test]
    fn finds_every_stored_prefix_shortest_first() {
        let keys = ["", "/", "/a", "/ab", "/abc/d", "/abd", "/b"];
        assert_eq!(hits(&keys, "/abc/d/e"), ["", "/", "/a", "/ab", "/abc/d"]);
        assert_eq!(hits(&keys, "/abc"), ["", "/", "/a", "/ab"]);
        assert_eq!(hits(&keys, "/b"), ["", "/", "/b"]);
        assert_eq!(hits(&keys, "*"), [""]);
        assert_eq!(hits(&keys, ""), [""]);
    }

    #[test]
    fn a_root_label_must_match_too() {
        assert_eq!(hits(&["/v1/users"], "/v1/users/7"), ["/v1/users"]);
        assert_eq!(hits(&["/v1/users"], "/v1/user"), Vec::<String>::new());
        assert_eq!(hits(&["/v1/a", "/v1/b"], "/v2/a"), Vec::<String>::new());
        assert_eq!(hits(&["/v1/a", "/v1/b"], "/v1/"), Vec::<String>::new());
    }

    #[test]
    fn ten_thousand_nested_keys_need_no_stack() {
        let keys: Vec<String> = (0..10_000).map(|n| "/a".repeat(n)).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert_eq!(hits(&keys, &"/a".repeat(9_999)).len(), 10_000);
    }

    #[test]
    fn every_byte_may_branch() {
        let keys: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte, byte]).collect();
        let sorted: Vec<(&[u8], u32)> = keys
            .iter()
            .enumerate()
            .map(|(i, key)| (&**key, i as u32))
            .collect();
        let mut radix = Radix::default();
        let root = radix.plant(&sorted);
        for byte in 0..=255u8 {
            let mut seen = Vec::new();
            radix.descend(root, &[byte, byte, 1], |hit| seen.push(hit.value));
            assert_eq!(seen, [u32::from(byte)]);
        }
    }

    #[test]
    fn prefixes_end_with_their_segment() {
        let ends = |depth, path: &str| {
            Hit {
                depth,
                value: 0,
                up: None,
            }
            .ends_segment(path.as_bytes())
        };
        assert!(ends(3, "/v1") && ends(3, "/v1/") && ends(3, "/v1/x"));
        assert!(!ends(3, "/v1x"));
        assert!(ends(0, "*") && ends(0, "/x") && ends(0, ""));
    }
}
