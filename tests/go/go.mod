module kontiki/tests

go 1.26
