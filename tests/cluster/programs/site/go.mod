module wssgate.io/tests/cluster/site

go 1.24.0
