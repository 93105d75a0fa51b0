"""Common English words, so that what a person types is not spelled letter by letter."""

COMMON_WORDS = """
the be to of and a in that have it for not on with he as you do at this but his by from they we say her she or an will
my one all would there their what so up out if about who get which go me when make can like time no just him know take
people into year your good some could them see other than then now look only come its over think also back after use
two how our work first well way even new want because any these give day most us are was were been has had did does
made said came went took got saw knew gave found told asked left felt kept began seemed turned called tried needed
became put brought set run read stood heard let meant met paid sat spoke lay led grew lost fell sent built understood
drew broke spent cut rose drove bought wore chose ate animal answer apple area arm art away baby bad bag bank base
bear beat beautiful bed before best better between big bit black blood blow blue board body bone both bottom boy bread
bridge bright bring brother brown build burn bus business busy buy call car card care carry case catch centre certain
chair chance change child children choose church circle city class clean clear climb close cloth cloud coat cold
colour common company complete computer contain continue control cook cool copy corn corner correct cost count country
course cover cross crowd cry cup cut dance danger dark daughter dead deal dear death decide deep dinner direct dish
divide doctor dog door double down draw dream dress drink drive drop dry during each ear early earth east easy eat
edge effect egg eight either else end enemy enjoy enough enter evening ever every everything example except exercise
expect explain eye face fact fall family far farm fast fat father fear feel feet few field fight fill final find fine
finger finish fire fish five fit floor flow flower fly follow food foot forest forget form forward four free fresh
friend front fruit full fun game garden gate general gentle girl glad glass go gold gone grass great green ground
group grow guess hair half hand happen happy hard hat hate head hear heart heat heavy help here high hill history hold
hole home hope horse hot hour house hundred hungry hurry hurt ice idea important inside interest iron island job join
journey jump keep key kill kind king kitchen knee knife land language large last late laugh law learn leave leg less
lesson letter life lift light line lion list listen little live long lot loud love low lunch machine main man many map
mark market matter maybe meal mean meat meet men middle might mile milk mind minute miss model moment money month moon
more morning mother mountain mouse mouth move much music must name narrow nature near neck never next nice night nine
noise none north nose note nothing notice number ocean off offer office often oil old once open orange order outside
own page pain paint pair paper parent park part party pass past path pay peace pen perhaps person phone pick picture
piece place plain plan plant play please point poor possible potato power present press pretty price prince print
problem promise proud pull push queen question quick quiet quite rabbit race radio rain raise reach ready real really
reason red remember rest rich ride right ring river road rock room round rule sad safe sail salt same sand save school
science sea season seat second secret seed seem sell send sentence seven shade shadow shake shape share sharp sheep
ship shirt shoe shop short should shoulder shout show shut sick side sign silver simple sing sister sit six size skin
sky sleep slow small smell smile smoke snow soft soldier sometimes son song soon sorry sort sound soup south space
speak special spell spend spoon spot spring square stand star start station stay step stick still stone stop store
storm story straight strange street strong student study such sudden sugar summer sun sure surprise sweet swim table
tail talk tall taste teach teacher team tell ten test thank thick thin thing third thousand three through throw ticket
tie together tomorrow tonight too tool tooth top touch toward town train travel tree trip trouble true trust try turn
twelve twenty uncle under understand until usual valley very village visit voice wait walk wall war warm wash watch
water wave weak wear weather week weight welcome west wet wheel where while white whole why wide wife wild wind window
winter wise wish without woman women wonder wood word world worry write wrong yard yellow yes yesterday yet young
yourself zero address advice afraid afternoon agree ahead alive allow almost alone along already although always
amount ancient anger angry another anyone appear april army around arrive art aunt autumn awake balloon banana beach
beard bee behind believe below beneath beside bicycle birthday bitter blanket blind bottle bowl branch brave breakfast
breath bucket butter camera camp candle captain carpet ceiling cheap cheese cherry chicken chocolate cinema clever
cloudy coffee collect comfortable cottage cousin creature cupboard curtain customer dentist desert diamond difficult
dinner dirty discover dragon dragonfly eagle elephant empty engine evil excellent factory fairy famous fence festival
fever firm flag flour freedom frozen furniture ghost giant glove goose grandfather grandmother grape guitar hammer
handsome harbour healthy helpful hospital hunger husband insect invite jacket jewel joke juice jungle kettle kitten
ladder lazy lemon lesson lizard lonely lucky magic medicine melon memory
""".split()
