//! Data forms (XEP-0004, with the form type of XEP-0068).

use super::element::Element;

/// The namespace of data forms.
pub const DATA_FORM: &str = "jabber:x:data";

/// The field that names the type of a form.
const FORM_TYPE: &str = "FORM_TYPE";

/// A form being built.
#[derive(Clone, Debug)]
pub struct Form(Element);

impl Form {
    /// A form to be filled in.
    pub fn to_fill_in(form_type: &str) -> Form {
        Form::new("form", form_type)
    }

    /// A form that holds results.
    pub fn result(form_type: &str) -> Form {
        Form::new("result", form_type)
    }

    fn new(kind: &'static str, form_type: &str) -> Form {
        let form = Form(Element::new("x", DATA_FORM).with("type", kind));
        form.field(
            with_value(element("field").with("var", FORM_TYPE), form_type).with("type", "hidden"),
        )
    }

    /// Sets the title and an instruction; they come before all fields.
    #[must_use]
    pub fn headed(mut self, title: &str, instructions: &str) -> Form {
        let heading = [("title", title), ("instructions", instructions)]
            .map(|(name, text)| element(name).with_text(text));
        let fields = std::mem::take(&mut self.0.children);
        self.0 = self.0.with_children(heading);
        self.0.children.extend(fields);
        self
    }

    /// A value without a type or a label, for programs.
    #[must_use]
    pub fn value(self, var: &str, value: &str) -> Form {
        self.field(with_value(element("field").with("var", var), value))
    }

    /// Several values without a label, for programs.
    #[must_use]
    pub fn list<'a>(self, var: &str, values: impl IntoIterator<Item = &'a str>) -> Form {
        let field = element("field").with("var", var).with("type", "list-multi");
        self.field(values.into_iter().fold(field, with_value))
    }

    /// A line of text.
    #[must_use]
    pub fn text(self, var: &str, label: &str, value: &str) -> Form {
        self.field(with_value(labelled("text-single", var, label), value))
    }

    /// An empty line of text that may be filled in, and has to be if it is `required`.
    #[must_use]
    pub fn entry(self, var: &str, label: &str, required: bool) -> Form {
        let required = required.then(|| element("required"));
        self.field(labelled("text-single", var, label).with_children(required))
    }

    /// Several lines of text.
    #[must_use]
    pub fn lines<'a>(
        self,
        var: &str,
        label: &str,
        lines: impl IntoIterator<Item = &'a str>,
    ) -> Form {
        let field = labelled("text-multi", var, label);
        self.field(lines.into_iter().fold(field, with_value))
    }

    /// Text that is only shown.
    #[must_use]
    pub fn fixed(self, text: &str) -> Form {
        self.field(with_value(element("field").with("type", "fixed"), text))
    }

    /// A choice of any number of options, each with a label and a value.
    #[must_use]
    pub fn choice(
        self,
        var: &str,
        label: &str,
        options: impl IntoIterator<Item = (String, String)>,
    ) -> Form {
        let options = options
            .into_iter()
            .map(|(label, value)| with_value(element("option").with("label", label), &value));
        self.field(labelled("list-multi", var, label).with_children(options))
    }

    fn field(self, field: Element) -> Form {
        Form(self.0.with_child(field))
    }

    /// The form as an element.
    pub fn into_element(self) -> Element {
        self.0
    }
}

fn element(name: &'static str) -> Element {
    Element::new(name, DATA_FORM)
}

fn labelled(kind: &'static str, var: &str, label: &str) -> Element {
    element("field")
        .with("var", var)
        .with("type", kind)
        .with("label", label)
}

fn with_value(field: Element, value: &str) -> Element {
    field.with_child(element("value").with_text(value))
}

/// A form that was filled in.
#[derive(Clone, Debug)]
pub struct Submission(Element);

impl Submission {
    /// The form among the children of a payload: the first one.
    pub fn of(payload: Element) -> Option<Submission> {
        payload
            .into_elements()
            .find(|child| child.is("x", DATA_FORM))
            .map(Submission)
    }

    /// Whether this is a filled-in form of this type. The form type may be missing: some clients return only the fields
    /// that a user can see. A cancelled form counts as submitted (XEP-0050 §3.5.1).
    pub fn is(&self, form_type: &str) -> bool {
        matches!(self.0.attribute("type"), Some("submit" | "cancel"))
            && self.values(FORM_TYPE).all(|value| value == form_type)
    }

    /// All values of a field, without those of its options.
    pub fn values(&self, var: &str) -> impl Iterator<Item = String> {
        self.0
            .elements()
            .filter(move |field| {
                field.is("field", DATA_FORM) && field.attribute("var") == Some(var)
            })
            .flat_map(Element::elements)
            .filter(|value| value.is("value", DATA_FORM))
            .map(Element::text)
    }

    /// The only value of a field, without the white space around it; `None` if it is absent or blank.
    pub fn value(&self, var: &str) -> Option<String> {
        let value = self.values(var).next()?.trim().to_owned();
        (!value.is_empty()).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::*;

    fn written(form: Form) -> String {
        super::super::tests::written(&form.into_element())
    }

    #[test]
    fn forms_are_written() {
        let form = Form::to_fill_in("urn:t")
            .headed("T", "Fill <in>.")
            .fixed("Some text.")
            .entry("a", "A", true)
            .entry("b", "B", false)
            .choice("c", "C", [("x 'y' & \"z\" <".to_owned(), "1".to_owned())]);
        assert_eq!(
            written(form),
            "<x xmlns='jabber:x:data' type='form'><title>T</title><instructions>Fill &lt;in&gt;.</instructions>\
             <field var='FORM_TYPE' type='hidden'><value>urn:t</value></field>\
             <field type='fixed'><value>Some text.</value></field>\
             <field var='a' type='text-single' label='A'><required/></field>\
             <field var='b' type='text-single' label='B'/>\
             <field var='c' type='list-multi' label='C'>\
             <option label='x &apos;y&apos; &amp; &quot;z&quot; &lt;'><value>1</value></option></field></x>"
        );
        let form = Form::result("urn:t")
            .value("v", "1")
            .text("t", "L", "text")
            .lines("m", "M", ["one", "two"]);
        assert_eq!(
            written(form),
            "<x xmlns='jabber:x:data' type='result'>\
             <field var='FORM_TYPE' type='hidden'><value>urn:t</value></field>\
             <field var='v'><value>1</value></field>\
             <field var='t' type='text-single' label='L'><value>text</value></field>\
             <field var='m' type='text-multi' label='M'><value>one</value><value>two</value></field></x>"
        );
    }

    #[test]
    fn submissions_are_read() {
        let read = |inside: &str| Submission::of(parse(&format!("<c xmlns='u'>{inside}</c>")));
        assert!(read("").is_none());
        assert!(read("<x/>").is_none());
        let form = read(
            "<y/><x xmlns='jabber:x:data' type='submit'><title>T</title>\
             <field var='FORM_TYPE'><value>urn:t</value></field>\
             <field var='a'><value>1</value><option label='L'><value>no</value></option><value>2 &lt;</value></field>\
             <field var='b'><value> x </value></field><field var='e'><value>  </value></field><field/>\
             <field xmlns='other' var='a'><value>no</value></field></x>",
        )
        .unwrap();
        assert!(form.is("urn:t") && !form.is("urn:u"));
        assert_eq!(form.values("a").collect::<Vec<_>>(), ["1", "2 <"]);
        assert_eq!(form.value("b").as_deref(), Some("x"));
        for var in ["c", "e", ""] {
            assert_eq!(form.value(var), None, "{var}");
        }
        for (kind, is) in [
            ("submit", true),
            ("cancel", true),
            ("form", false),
            ("result", false),
        ] {
            let form = read(&format!("<x xmlns='jabber:x:data' type='{kind}'/>")).unwrap();
            assert_eq!(form.is("urn:t"), is, "{kind}");
        }
    }
}
