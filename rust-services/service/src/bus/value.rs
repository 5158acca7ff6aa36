// SPDX-License-Identifier: Apache-2.0
//! Values that somebody wants to give to a property.

use zbus::fdo;
use zbus::zvariant::{Type, Value};

/// The value as the property's own type. Take a `Value<'_>` in a property's setter and turn it
/// with this: what the D-Bus library says of a wrong type by itself names neither the property
/// nor the type.
///
/// # Errors
/// `InvalidArgs`, with the property's type and the one that came.
pub fn typed<'v, T>(property: &str, value: Value<'v>) -> fdo::Result<T>
where
    T: TryFrom<Value<'v>> + Type,
{
    let given = value.value_signature().to_string();
    let own = T::SIGNATURE.to_string();
    let word = match own.as_str() {
        "b" => " (true or false)",
        "d" => " (a number with a fraction)",
        "s" => " (a text)",
        "u" | "t" | "y" | "q" => " (a whole number from 0)",
        _ => "",
    };
    T::try_from(value).map_err(|_| {
        fdo::Error::InvalidArgs(format!(
            "{property} is of type {own}{word}, what came is of type {given}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_another_type_is_refused_by_name() {
        assert_eq!(typed::<f64>("Volume", Value::from(0.5)), Ok(0.5));
        assert_eq!(
            typed::<String>("Role", Value::from("x")).as_deref(),
            Ok("x")
        );
        let refused = typed::<bool>("Mute", Value::from(1_u32)).unwrap_err();
        assert_eq!(
            refused,
            fdo::Error::InvalidArgs(
                "Mute is of type b (true or false), what came is of type u".to_owned()
            )
        );
    }
}
