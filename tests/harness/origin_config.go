package harness

import (
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

// Knobs: the first part of the path of an Origin's URL.
//
//	plain            as nginx serves a file: ranges, a strong ETag; ?rate=4m limits bytes per second, in each of these
//	noranges         ranges are ignored
//	unsized          the length is not told: chunked
//	cut              every answer ends early, after about ?after= bytes; what is asked for with a range, too
//	cut-noranges     the same, always from the beginning
//	cut-start        the first answer is cut; the ranges that follow are said to begin at 0
//	cut-total        the ranges that follow are of a content of another length
//	cut-other        the ranges that follow are of the file NAME.other, with the ETag of the first
//	cut-etag         the first answer is cut; the ranges that follow have another ETag
//	encoded          the file, said to be packed by gzip
//	login            a page in HTML, whatever is asked for
//	status-N         answers with that status: 401, 403, 404, 410, 429, 500, 503
//	later            503 until the file "open" is served
//	redirect         302 to what stands in ?to=, as it stands there
//	loop             302 to itself
//	token            needs the header "Authorization: Bearer secret"
//
// No server answers HEAD: not all do, and a download does not need it.
const originConfig = `
daemon off;
master_process off;
worker_processes 1;
user root;
pid {{.Folder}}/nginx.pid;
load_module /usr/lib/nginx/modules/ngx_http_echo_module.so;
events {}
http {
	log_format requests escape=json '{"at":$msec,"port":"$server_port","method":"$request_method","uri":"$request_uri",'
		'"status":$status,"sent":$body_bytes_sent,"finished":"$request_completion","range":"$http_range","if_range":"$http_if_range",'
		'"encoding":"$http_accept_encoding","authorization":"$http_authorization","referer":"$http_referer"}';
	access_log {{.Folder}}/access.log requests;
	client_body_temp_path {{.Folder}}/temp/body;
	proxy_temp_path {{.Folder}}/temp/proxy;
	fastcgi_temp_path {{.Folder}}/temp/fastcgi;
	uwsgi_temp_path {{.Folder}}/temp/uwsgi;
	scgi_temp_path {{.Folder}}/temp/scgi;
	default_type application/octet-stream;
	sendfile on;
	# Whoever lets packing be chosen gets other bytes than were asked for.
	gzip on;
	gzip_types *;
	gzip_min_length 1;

	map $arg_rate $rate { default 0; "~^[0-9]+[km]?$" $arg_rate; }
	map $arg_after $after { default 1m; "~^[0-9]+[km]?$" $arg_after; }
	# Only what was not resumed is cut.
	map $http_range $first_rate { "" 1; default 0; }
	map $http_range $first_file { "" ""; default ".other"; }
	map $upstream_http_content_range $zero_range { default ""; "~^bytes [0-9]+(?<rest>-[0-9]+/[0-9]+)$" "bytes 0$rest"; }
	map $upstream_http_content_range $other_total { default ""; "~^(?<first>bytes [0-9]+-[0-9]+)/[0-9]+$" "$first/987654321"; }
	map $http_range $other_etag { "" '"first"'; default '"next"'; }

	server {
		listen {{.Address}}:{{.Ports.Plain}};
		listen {{.Address}}:{{.Ports.Elsewhere}};
		include {{.Folder}}/knobs.conf;
	}
	{{range .TLS}}
	server {
		listen {{$.Address}}:{{.Port}} ssl;
		ssl_certificate {{.File}}.pem;
		ssl_certificate_key {{.File}}-key.pem;
		include {{$.Folder}}/knobs.conf;
	}
	{{end}}
	# What the cut answers come from: it nearly stops, and nginx loses its patience with it.
	server {
		listen unix:{{.Folder}}/behind;
		access_log off;
		root {{.Folder}}/files;
		limit_rate_after $after;
		location / { limit_rate 1; }
		location /noranges/ { alias {{.Folder}}/files/; limit_rate 1; max_ranges 0; }
		location /first/ { alias {{.Folder}}/files/; limit_rate $first_rate; }
		location ~ ^/other/(?<name>.*)$ { alias {{.Folder}}/files/$name$first_file; limit_rate $first_rate; }
	}
}
`

// originKnobs is what every server of the configuration has in common.
const originKnobs = `
root {{.Folder}}/nothing;
if ($request_method != GET) { return 405; }
limit_rate $rate;
proxy_http_version 1.1;
proxy_buffering off;
proxy_read_timeout 300ms;

location /plain/ { alias {{.Folder}}/files/; }
location /noranges/ { alias {{.Folder}}/files/; max_ranges 0; }
location /unsized/ { alias {{.Folder}}/files/; sub_filter_types *; sub_filter 'no image holds this sentence' ''; }
location /encoded/ { alias {{.Folder}}/files/; gzip off; add_header Content-Encoding gzip; }
location /token/ {
	alias {{.Folder}}/files/;
	if ($http_authorization != "Bearer secret") { return 401; }
}
location /login/ { default_type text/html; return 200 "<!DOCTYPE html><html><title>Log in</title></html>"; }
location /later/ {
	alias {{.Folder}}/files/;
	if (!-f {{.Folder}}/files/open) { return 503; }
}
location /redirect/ { return 302 $arg_to; }
location /loop/ { return 302 $uri; }
{{range .Statuses}}location /status-{{.}}/ { return {{.}}; }
{{end}}
location /cut/ { proxy_pass http://unix:{{.Folder}}/behind:/; }
location /cut-noranges/ { proxy_pass http://unix:{{.Folder}}/behind:/noranges/; }
location /cut-start/ {
	proxy_pass http://unix:{{.Folder}}/behind:/first/;
	proxy_hide_header Content-Range;
	add_header Content-Range $zero_range;
}
location /cut-total/ {
	proxy_pass http://unix:{{.Folder}}/behind:/first/;
	proxy_hide_header Content-Range;
	add_header Content-Range $other_total;
}
location /cut-other/ {
	proxy_pass http://unix:{{.Folder}}/behind:/other/;
	proxy_set_header If-Range "";
	proxy_hide_header ETag;
	proxy_hide_header Last-Modified;
	add_header ETag '"same"';
}
location /cut-etag/ {
	proxy_pass http://unix:{{.Folder}}/behind:/first/;
	proxy_set_header If-Range "";
	proxy_hide_header ETag;
	proxy_hide_header Last-Modified;
	add_header ETag $other_etag;
}
`

// originPorts are the ports of an Origin's servers.
type originPorts struct{ Plain, Elsewhere, Good, WrongName, Unknown, Expired int }

func (p *originPorts) all() []*int {
	return []*int{&p.Plain, &p.Elsewhere, &p.Good, &p.WrongName, &p.Unknown, &p.Expired}
}

func (o *Origin) configure() error {
	type server struct {
		Port int
		File string
	}
	values := struct {
		Folder, Address string
		Ports           originPorts
		TLS             []server
		Statuses        []int
	}{o.folder, o.address, o.ports, nil, []int{401, 403, 404, 410, 429, 500, 503}}
	if strings.Contains(o.address, ":") {
		values.Address = "[" + o.address + "]"
	}
	for kind, port := range o.tlsPorts() {
		values.TLS = append(values.TLS, server{port, o.pki.file(kind)})
	}
	for name, text := range map[string]string{"nginx.conf": originConfig, "knobs.conf": originKnobs} {
		var out strings.Builder
		if err := template.Must(template.New(name).Parse(text)).Execute(&out, values); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(o.folder, name), []byte(out.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
