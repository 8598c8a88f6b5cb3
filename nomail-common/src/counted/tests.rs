use super::*;

counted! {
    /// Kinds of fruit.
    enum Fruit "fruit_" {
        /// Round, and red or
        /// green.
        Apple "apple" "an apple";
        /// Yellow.
        Lemon "lemon" "a lemon";
    }
}

#[test]
fn a_row_has_all_of_a_word() {
    assert_eq!(Fruit::ALL, [Fruit::Apple, Fruit::Lemon]);
    assert_eq!((Fruit::COUNT, Fruit::Lemon.index()), (2, 1));
    let apple = Fruit::Apple;
    assert_eq!(
        [apple.name(), apple.key(), apple.label(), apple.help()],
        [
            "apple",
            "fruit_apple",
            "an apple",
            "Round, and red or green."
        ]
    );
}
