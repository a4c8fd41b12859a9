use proptest::prelude::*;

use super::*;

const TRAITS: Traits = Traits {
    id: 0,
    is_name_sound: true,
    is_value_sound: true,
};

/// A step, of which the texts are as long as it says.
#[derive(Clone, Debug)]
enum Step {
    Add(usize, usize),
    AddNamed(usize, usize),
    SetMax(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![3 => 0..40usize, 1 => 0..1500usize];
    prop_oneof![
        20 => (len(), len()).prop_map(|(name, value)| Step::Add(name, value)),
        20 => (0..30usize, len()).prop_map(|(age, value)| Step::AddNamed(age, value)),
        1 => prop_oneof![0..200usize, Just(4096), 0..4096usize].prop_map(Step::SetMax),
    ]
}

/// Entries as they are told in the RFC, newest first.
struct Model {
    rows: Vec<(Vec<u8>, Vec<u8>)>,
    max: usize,
}

impl Model {
    fn size(&self) -> usize {
        self.rows
            .iter()
            .map(|(name, value)| name.len() + value.len() + 32)
            .sum()
    }

    fn shrink(&mut self) {
        while self.size() > self.max {
            self.rows.pop();
        }
    }

    fn add(&mut self, name: Vec<u8>, value: Vec<u8>) {
        self.rows.insert(0, (name, value));
        // What is too large goes last, so that nothing is left.
        self.shrink();
    }
}

proptest! {
    #[test]
    fn a_table_is_as_its_model(steps in proptest::collection::vec(any_step(), 0..100)) {
        let mut table = Table::new();
        let mut model = Model { rows: Vec::new(), max: 4096 };
        for (nth, step) in steps.into_iter().enumerate() {
            let text = |len, salt: usize| -> Vec<u8> {
                (0..len).map(|at| (nth * 7 + at * 3 + salt) as u8).collect()
            };
            match step {
                Step::Add(name, value) => {
                    let (name, value) = (text(name, 0), text(value, 1));
                    table.add(Row { name: &name, value: &value, traits: TRAITS });
                    model.add(name, value);
                }
                Step::AddNamed(age, value) => {
                    let value = text(value, 2);
                    table.add_named(age, &value, true);
                    if let Some((name, _)) = model.rows.get(age).cloned() {
                        model.add(name, value);
                    }
                }
                Step::SetMax(max) => {
                    table.set_max(max);
                    model.max = max;
                    model.shrink();
                }
            }
            prop_assert_eq!(table.len(), model.rows.len());
            prop_assert_eq!(table.size(), model.size());
            for (age, (name, value)) in model.rows.iter().enumerate() {
                let row = table.row(age).unwrap();
                prop_assert_eq!((row.name, row.value), (&name[..], &value[..]));
            }
            prop_assert!(table.row(model.rows.len()).is_none());
            prop_assert!(table.row(usize::MAX).is_none());
            prop_assert!(table.bytes.capacity() <= 2 * 4096);
        }
    }
}

#[test]
fn positions_may_wrap() {
    let mut table = Table::new();
    table.base = u32::MAX - 5000;
    for nth in 0..1000usize {
        let name = [nth as u8; 50];
        table.add(Row {
            name: &name,
            value: &name[..nth % 50],
            traits: TRAITS,
        });
        for age in 0..table.len() {
            let row = table.row(age).unwrap();
            assert_eq!(row.name, [(nth - age) as u8; 50]);
            assert_eq!(row.value.len(), (nth - age) % 50);
        }
    }
    assert!(table.base < u32::MAX - 5000);
}

#[test]
fn a_byte_moves_at_most_once_on_average_and_nothing_is_allocated_in_the_end() {
    let mut table = Table::new();
    let text = [b'v'; 300];
    for nth in 0..100 {
        table.add(Row {
            name: b"name",
            value: &text[..nth * 3],
            traits: TRAITS,
        });
    }
    let (place, held) = (table.bytes.as_ptr(), table.held());
    for nth in 0..10_000 {
        table.add(Row {
            name: b"name",
            value: &text[..nth % 300],
            traits: TRAITS,
        });
    }
    assert_eq!((table.bytes.as_ptr(), table.held()), (place, held));
}
