-- upslot beside Prosody 0.11 or newer.
--
-- Copy to /etc/prosody/conf.avail/upslot.cfg.lua, put your own name and secret in, link it from conf.d, and reload:
--
--     ln -s ../conf.avail/upslot.cfg.lua /etc/prosody/conf.d/
--     prosodyctl check config && prosodyctl reload
--
-- In upslot's configuration:   component_jid: upload.example.org
--                              component_secret: the same as here
--
-- A VirtualHost of "example.org" lists the component to its users by itself, because its name ends in ".example.org".

Component "upload.example.org"
  -- For example the output of: openssl rand -hex 24
  component_secret = "change-me"

-- Users of another VirtualHost see the service when that host lists it. This line belongs below that
-- VirtualHost "example.com", where it already stands in your configuration:
--
--     disco_items = { { "upload.example.org", "HTTP File Upload" } }
--
-- Prosody listens for components on port 5347 of 127.0.0.1 and ::1. If upslot runs on another machine or in a
-- container, set this in the global section, above the first VirtualHost. XEP-0114 has no encryption, so keep it to
-- a private network:
--
--     component_interfaces = { "127.0.0.1", "::1", "192.0.2.10" }
--     component_ports = { 5347 }
--
-- Remove other upload modules, so that clients do not find two services: any Component with "http_file_share" or
-- "http_upload", and "http_upload" or "http_upload_external" in modules_enabled.
